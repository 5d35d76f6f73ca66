"""The command line as a user runs it: real processes, real models, the real mongosh."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from daemon.embedded import running
from daemon.logs import READY
from tests.conftest import pulled

REPOSITORY = Path(__file__).parents[2]
#: seconds; the demo takes less than one minute on two idle cores, and tests rarely have them
DEMO_TIMEOUT_S = 600
READY_TIMEOUT_S = 240
ENRICHD = str(Path(sys.executable).with_name("enrichd"))


@dataclass(frozen=True)
class Ran:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def enrichd(*arguments: str, cwd: Path, variables: Mapping[str, str] | None = None, timeout_s: float = 120) -> Ran:
    """Runs the console command. One that takes too long is told to end, so that it takes its own processes along."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ENRICHD_M")}
    with subprocess.Popen(
        [ENRICHD, *arguments],
        cwd=cwd,
        env={**environment, "COLUMNS": "200", **(variables or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            out, err = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            process.terminate()
            out, err = process.communicate(timeout=60)
            raise AssertionError(f"{arguments} took more than {timeout_s:g} s\n{out}\n{err}") from None
        return Ran(process.returncode, out, err)


@contextmanager
def daemon(*arguments: str, cwd: Path) -> Iterator[Path]:
    """`enrichd run` while the block lasts, once it is ready; its log. It must end in order."""
    log = cwd / "run.log"
    with log.open("wb") as stream:
        process = subprocess.Popen([ENRICHD, "run", *arguments], cwd=cwd, stdout=stream, stderr=stream)
    try:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while READY not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield log
        process.terminate()
        assert process.wait(60) == 0, log.read_text()
    finally:
        process.terminate()  # rather than kill: it takes the embedded server along
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@dataclass(frozen=True)
class Demo:
    """The demo after its end."""

    ran: Ran
    folder: Path
    config: str

    @property
    def report(self) -> Any:
        return self.ran.json


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory, model_store: Any) -> Demo:
    """`enrichd demo --json`, run once for all tests."""
    pulled(model_store, "centerface", "dlib")
    folder = tmp_path_factory.mktemp("demo") / "demo"
    ran = enrichd("demo", "--json", "--folder", str(folder), cwd=REPOSITORY, timeout_s=DEMO_TIMEOUT_S)
    return Demo(ran, folder, str(folder / "enrichd.toml"))


@pytest.fixture(scope="session")
def demo_uri(demo: Demo) -> Iterator[str]:
    """The demo's database with a daemon on it, which goes on where the demo ended."""
    with daemon("--config", demo.config, cwd=demo.folder):
        uri = running(demo.folder / "data")
        assert uri is not None
        yield uri


class Mongosh:
    """Evaluates expressions in the real shell."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = list(command)

    def evaluate(self, uri: str, database: str, expressions: Sequence[str]) -> list[Any]:
        """The value of each expression, cursors as lists, in extended JSON's plain form."""
        script = "\n".join(
            f"{{ const value = ({expression.rstrip().rstrip(';')});"
            "print('answer ' + EJSON.stringify(value && value.toArray ? value.toArray() : value)); }"
            for expression in expressions
        )
        address = uri.replace("/?", f"/{database}?")
        result = subprocess.run(
            [*self._command, address, "--quiet", "--norc", "--eval", script],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert result.returncode == 0, result.stdout + result.stderr
        lines = [line.removeprefix("answer ") for line in result.stdout.splitlines() if line.startswith("answer ")]
        return [json.loads(line) if line != "undefined" else None for line in lines]


@pytest.fixture(scope="session")
def mongosh() -> Mongosh:
    """The pinned mongosh that `make test` installs."""
    script = REPOSITORY / "tests" / "mongosh" / "node_modules" / "mongosh" / "bin" / "mongosh.js"
    node = shutil.which("node", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if node is None or not script.exists():
        pytest.skip("mongosh is not installed; `make test` does that")
    return Mongosh([node, str(script)])
