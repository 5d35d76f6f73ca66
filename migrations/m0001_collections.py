"""Creates enrichd's own collections with validators, and the indexes it needs."""

from typing import Any

from pymongo import ASCENDING, DESCENDING, IndexModel
from pymongo.errors import CollectionInvalid

from daemon.store.collections import Collections

_KEY = {"bsonType": "object", "required": ["_id"]}
_BOX = {"bsonType": "array", "minItems": 4, "maxItems": 4, "items": {"bsonType": "number"}}

VALIDATORS: dict[str, dict[str, Any]] = {
    "faces": {
        "bsonType": "object",
        "required": ["image", "box", "embeddings"],
        "properties": {
            "image": _KEY,
            "box": _BOX,
            "embeddings": {"bsonType": "object"},
            "identity": {"bsonType": ["objectId", "null"]},
            "verdict": {"bsonType": ["string", "null"]},
        },
    },
    "identities": {
        "bsonType": "object",
        "required": ["state", "created_at"],
        "properties": {
            "name": {"bsonType": ["string", "null"]},
            "state": {"enum": ["active", "hidden", "merged"]},
            "merged_into": {"bsonType": ["objectId", "null"]},
        },
    },
    "enrichd_state": {"bsonType": "object"},
    "enrichd_leases": {"bsonType": "object"},
    "enrichd_failures": {"bsonType": "object", "required": ["error", "at"]},
    "enrichd_links": {"bsonType": "object", "required": ["kind"]},
    "enrichd_audit": {"bsonType": "object", "required": ["action", "at"]},
}

INDEXES: dict[str, list[IndexModel]] = {
    "faces": [
        IndexModel([("image._id", ASCENDING)]),
        IndexModel([("identity", ASCENDING)]),
        IndexModel([("clustered_at", ASCENDING)]),
        IndexModel([("verdict", ASCENDING)]),
        IndexModel([("image_sha256", ASCENDING)]),
    ],
    "identities": [
        IndexModel([("name", ASCENDING)]),
        IndexModel([("state", ASCENDING)]),
        IndexModel([("updated_at", ASCENDING)]),
    ],
    "enrichd_failures": [IndexModel([("at", DESCENDING)]), IndexModel([("error.type", ASCENDING)])],
    "enrichd_links": [
        IndexModel([("faces", ASCENDING)]),
        IndexModel([("others", ASCENDING)]),
        IndexModel([("identity", ASCENDING)]),
        IndexModel([("audit", ASCENDING)]),
    ],
    "enrichd_audit": [IndexModel([("at", DESCENDING)]), IndexModel([("identities", ASCENDING)])],
}

#: on the user's collection, which gets no validator: what the fast sweep and the usual questions ask for
IMAGE_INDEXES = [
    IndexModel([("enrichment.plan", ASCENDING)]),
    IndexModel([("enrichment.next_attempt_at", ASCENDING)], sparse=True),
    IndexModel([("enrichment.state", ASCENDING)]),
    IndexModel([("enrichments.faces.items.identity", ASCENDING)], sparse=True),
]


async def up(collections: Collections) -> None:
    database = collections.database
    for name, schema in VALIDATORS.items():
        validator = {"$jsonSchema": schema}
        try:
            await database.create_collection(name, validator=validator)
        except CollectionInvalid:  # it exists: an earlier try got this far
            await database.command("collMod", name, validator=validator)
    for name, indexes in INDEXES.items():
        await database[name].create_indexes(indexes)
    await collections.images.create_indexes(IMAGE_INDEXES)
