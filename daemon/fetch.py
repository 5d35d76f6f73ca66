"""Finds what a document's source stands for: a file that may be read, or bytes."""

import asyncio
import ipaddress
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

import httpx
from bson import Binary, ObjectId
from gridfs.asynchronous import AsyncGridFSBucket
from gridfs.errors import NoFile
from pymongo.errors import PyMongoError

from daemon.config import Images
from daemon.store.collections import Collections
from enrichers.errors import EnrichdError, ImageTooLarge

#: how many redirects one fetch follows
MAX_REDIRECTS = 5


class SourceUnreadable(EnrichdError):
    """The source of the image cannot be read."""


class SourceMissing(SourceUnreadable):
    """There is nothing where the source says the image is."""


class SourceForbidden(SourceUnreadable):
    """The configuration does not allow this source."""


class SourceUnknown(SourceUnreadable):
    """The source is of no kind that enrichd knows: a path, a URI, bytes, a GridFS id or {path|url|gridfs|data}."""


class SourceUnreachable(SourceUnreadable):
    """The source did not answer; it may do so later."""

    transient = True


class Fetcher:
    """Resolves sources by the rules of `[images]`. Files are only named here: decode workers read them."""

    def __init__(self, config: Images, collections: Collections) -> None:
        self._config = config
        self._roots = tuple(Path(root).expanduser().resolve() for root in config.roots)
        self._bucket = AsyncGridFSBucket(collections.database, config.gridfs_bucket)
        self._http: httpx.AsyncClient | None = None

    async def close(self) -> None:
        if self._http is not None:
            await self._http.aclose()

    async def fetch(self, source: Any) -> Path | bytes:
        """The file to read or the bytes. Raises SourceUnreadable or ImageTooLarge."""
        if isinstance(source, (bytes, Binary)):
            return self._checked(bytes(source))
        if isinstance(source, ObjectId):
            return await self._gridfs(source)
        if isinstance(source, str):
            return await self._reference(source)
        if isinstance(source, Mapping):
            return await self._described(source)
        raise SourceUnknown(
            f"A source of type {type(source).__name__} is none that enrichd knows: give a path, a URI, bytes, "
            "a GridFS id or a sub-document {path|url|gridfs|data}."
        )

    def _checked(self, data: bytes) -> bytes:
        if len(data) > self._config.max_bytes:
            raise ImageTooLarge(f"The image has {len(data)} bytes; images.max_bytes allows {self._config.max_bytes}.")
        return data

    async def _described(self, source: Mapping[str, Any]) -> Path | bytes:
        known = [key for key in ("data", "gridfs", "path", "url") if source.get(key) is not None]
        if len(known) != 1:
            raise SourceUnknown("A source that is a sub-document needs exactly one of path, url, gridfs and data.")
        value = source[known[0]]
        match known[0], value:
            case "data", bytes():
                return self._checked(bytes(value))
            case "gridfs", ObjectId():
                return await self._gridfs(value)
            case "gridfs", str():
                return await self._gridfs(_object_id(value))
            case "path", str():
                return self._file(value)
            case "url", str():
                return await self._reference(value)
        raise SourceUnknown(f"The source's field {known[0]} holds a {type(value).__name__}, which it cannot be.")

    async def _reference(self, reference: str) -> Path | bytes:
        scheme = urlsplit(reference).scheme.lower() if "://" in reference or reference.startswith("file:") else ""
        match scheme:
            case "":
                return self._file(reference)
            case "file":
                parts = urlsplit(reference)
                if parts.netloc not in ("", "localhost"):
                    raise SourceForbidden(f"{reference} names another host; only files of this one are read.")
                return self._file(unquote(parts.path))
            case "http" | "https":
                return await self._url(reference)
            case "gridfs":
                return await self._gridfs(_object_id(reference.split("://", 1)[1].rsplit("/", 1)[-1]))
        raise SourceUnknown(f"enrichd reads no {scheme}: sources.")

    def _file(self, path: str) -> Path:
        if not self._roots:
            raise SourceForbidden("No folder is configured from which images may be read: set images.roots.")
        if "\0" in path:
            raise SourceUnknown("The path holds a zero byte.")
        try:
            resolved = (self._roots[0] / path).resolve()
            if not any(resolved.is_relative_to(root) for root in self._roots):
                raise SourceForbidden(f"{path} is outside the configured folders (images.roots).")
            if not resolved.is_file():
                kind = "is not a file" if resolved.exists() else "does not exist"
                raise SourceMissing(f"{path} {kind}.")
        except OSError as error:
            raise SourceMissing(f"{path} cannot be read: {error.strerror}.") from error
        return resolved

    async def _gridfs(self, file_id: ObjectId) -> bytes:
        try:
            async with await self._bucket.open_download_stream(file_id) as stream:
                if stream.length > self._config.max_bytes:
                    raise ImageTooLarge(
                        f"The GridFS file has {stream.length} bytes; images.max_bytes allows {self._config.max_bytes}."
                    )
                return bytes(await stream.read())
        except NoFile:
            raise SourceMissing(f"GridFS bucket {self._config.gridfs_bucket!r} holds no file {file_id}.") from None
        except PyMongoError as error:
            raise SourceUnreachable(f"GridFS did not give the file {file_id}: {error}") from error

    async def _url(self, url: str) -> bytes:
        if not self._config.http.enabled:
            raise SourceForbidden("http(s) sources are switched off; images.http.enabled = true allows them.")
        if self._http is None:
            self._http = httpx.AsyncClient(timeout=self._config.http.timeout_s, follow_redirects=False)
        try:
            for _ in range(MAX_REDIRECTS + 1):
                address = await self._allowed_host(url)
                async with self._http.stream("GET", url) as response:
                    peer = response.extensions["network_stream"].get_extra_info("server_addr")
                    self._check_address(str(peer[0]) if peer else address, url)
                    if response.is_redirect:
                        url = urljoin(url, response.headers["location"])
                        continue
                    return await self._body(response, url)
            raise SourceUnreadable(f"{url} redirects more than {MAX_REDIRECTS} times.")
        except (httpx.TransportError, TimeoutError) as error:
            raise SourceUnreachable(f"{url} did not answer: {error or type(error).__name__}") from error
        except httpx.InvalidURL as error:
            raise SourceUnknown(f"{url} is no valid URL: {error}") from error

    async def _body(self, response: httpx.Response, url: str) -> bytes:
        if response.status_code in (404, 410):
            raise SourceMissing(f"{url} answered {response.status_code}.")
        if response.status_code in (408, 425, 429) or response.status_code >= 500:
            raise SourceUnreachable(f"{url} answered {response.status_code}.")
        if response.status_code != 200:
            raise SourceForbidden(f"{url} answered {response.status_code}.")
        data = bytearray()
        async for chunk in response.aiter_bytes():
            data += chunk
            if len(data) > self._config.max_bytes:
                raise ImageTooLarge(f"{url} gives more than the {self._config.max_bytes} bytes of images.max_bytes.")
        return bytes(data)

    async def _allowed_host(self, url: str) -> str:
        """One address of the URL's host, after checking them all."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise SourceUnknown(f"{url} is no http(s) URL.")
        try:
            found = await asyncio.get_running_loop().getaddrinfo(parts.hostname, None, type=socket.SOCK_STREAM)
        except socket.gaierror as error:
            raise SourceUnreachable(f"The host of {url} is not known: {error}") from error
        addresses = [str(entry[4][0]) for entry in found]
        for address in addresses:
            self._check_address(address, url)
        return addresses[0]

    def _check_address(self, address: str, url: str) -> None:
        if not self._config.http.private and not ipaddress.ip_address(address).is_global:
            raise SourceForbidden(
                f"{url} leads to the private address {address}; images.http.private = true allows it."
            )


def _object_id(text: str) -> ObjectId:
    if not ObjectId.is_valid(text):
        raise SourceUnknown(f"{text!r} is no GridFS id.")
    return ObjectId(text)
