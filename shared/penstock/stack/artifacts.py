"""Fetches what the stack runs on, once a user: jars from Maven Central through jgo, each checked against its SHA-256.

``artifacts.json`` beside this file lists every file with its hash; ``python -m penstock.stack.artifacts`` prints it
anew from the versions below. jgo's environments are not used: to sort jars it would fetch a second Java, and a download
that was cut short would stay in its cache for good.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.stack.errors import ArtifactError, Interrupted

__all__ = ["Artifact", "ArtifactStore", "Bundle", "default_cache_dir", "load_bundles"]

KAFKA = "org.apache.kafka:kafka_2.13:4.3.1+org.slf4j:slf4j-simple:1.7.36"
REGISTRY = ("io.apicurio", "apicurio-registry-app", "3.3.3", "all", "tar.gz")

_ATTEMPTS = 3
_RETRY_DELAY_S = 0.5
_DOWNLOADS_AT_ONCE = 6
_HTTP_TIMEOUT_S = 60

Progress = Callable[[int, int], None]
"""Called with bytes fetched so far and bytes announced so far."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """One file of a Maven repository and the SHA-256 it must have."""

    group: str
    name: str
    version: str
    sha256: str
    classifier: str = ""
    packaging: str = "jar"

    @property
    def filename(self) -> str:
        """Name of the file in a Maven repository."""
        classifier = f"-{self.classifier}" if self.classifier else ""
        return f"{self.name}-{self.version}{classifier}.{self.packaging}"


@dataclass(frozen=True, slots=True)
class Bundle:
    """The files one part of the stack is made of."""

    name: str
    version: str
    artifacts: tuple[Artifact, ...]

    @property
    def folder(self) -> str:
        """Name of the installed folder: it changes with any hash, so a folder that exists is complete and right."""
        digest = hashlib.sha256("".join(sorted(a.sha256 for a in self.artifacts)).encode()).hexdigest()
        return f"{self.name}-{self.version}-{digest[:12]}"


def load_bundles() -> dict[str, Bundle]:
    """Return the pinned bundles by name."""
    raw = json.loads(Path(__file__).with_name("artifacts.json").read_text("utf-8"))
    return {
        name: Bundle(name, bundle["version"], tuple(Artifact(**artifact) for artifact in bundle["artifacts"]))
        for name, bundle in raw.items()
    }


def default_cache_dir(environ: Mapping[str, str]) -> Path:
    """Return where installed bundles are kept: PENSTOCK_CACHE_DIR, else ``penstock`` in the user's cache folder."""
    if given := environ.get("PENSTOCK_CACHE_DIR"):
        return Path(given).expanduser().absolute()
    cache = environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "penstock"


class ArtifactStore:
    """Installed bundles under ``root``, shared by all stacks of a user.

    ``repositories`` (address by name) and ``maven_cache`` say where files come from and where jgo keeps them; the
    default is what jgo is configured for, then Maven Central, and the user's Maven cache.
    """

    def __init__(
        self, root: Path, *, repositories: Mapping[str, str] | None = None, maven_cache: Path | None = None
    ) -> None:
        self._root = root
        self._repositories = repositories
        self._maven_cache = maven_cache

    def install(self, bundle: Bundle, progress: Progress, stop: threading.Event) -> Path:
        """Return the folder that holds ``bundle``, fetching it first where it is not there yet.

        Jars lie flat in the folder; an archive (``tar.gz``) is unpacked into it.

        Raises:
            ArtifactError: a file could not be fetched, or is not the one that was pinned.
            Interrupted: ``stop`` was set meanwhile.
        """
        folder = self._root / bundle.folder
        if folder.exists():
            return folder
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            with _exclusive(self._root / f"{bundle.folder}.lock", stop):
                if not folder.exists():
                    self._build(bundle, folder, progress, stop)
        except OSError as error:
            raise ArtifactError(f"cannot install {bundle.name} under {self._root}: {error}; free space there or set "
                                "PENSTOCK_CACHE_DIR elsewhere") from error  # fmt: skip
        return folder

    def _build(self, bundle: Bundle, folder: Path, progress: Progress, stop: threading.Event) -> None:
        meter = _Meter(progress, stop)
        with ThreadPoolExecutor(_DOWNLOADS_AT_ONCE) as pool:
            files = list(pool.map(lambda artifact: self._fetch(artifact, meter), bundle.artifacts))
        # Filled aside and renamed: whoever sees the folder sees all of it.
        with tempfile.TemporaryDirectory(dir=self._root, prefix=f".{bundle.name}-") as draft:
            content = Path(draft) / "content"
            content.mkdir()
            for artifact, file in zip(bundle.artifacts, files, strict=True):
                if artifact.packaging == "tar.gz":
                    _unpack(file, content)
                else:
                    _link(file, content / artifact.filename)
            content.rename(folder)

    def _fetch(self, artifact: Artifact, meter: _Meter) -> Path:
        from jgo.maven import PythonResolver
        from requests import RequestException

        context = _maven(PythonResolver(progress_callback=meter.file), self._repositories, self._maven_cache)
        component = context.project(artifact.group, artifact.name).at_version(artifact.version)
        remote = component.artifact(artifact.classifier, artifact.packaging)
        cause: Exception
        for attempt in range(_ATTEMPTS):
            meter.pause(attempt * _RETRY_DELAY_S)
            try:
                path = Path(remote.resolve())
            except (RequestException, RuntimeError) as error:
                with contextlib.suppress(FileNotFoundError):
                    remote.cached_path.unlink()  # jgo leaves what came before the failure, under the final name
                cause = error
                continue
            except Interrupted:
                with contextlib.suppress(FileNotFoundError):
                    remote.cached_path.unlink()
                raise
            if _sha256(path) == artifact.sha256:
                return path
            path.unlink()
            cause = ArtifactError("its SHA-256 is not the pinned one")
        raise ArtifactError(
            f"could not fetch {artifact.filename} from {', '.join(context.remote_repos.values())} in {_ATTEMPTS} tries: "
            f"{cause}; check the network and its proxy, or name a mirror under [repositories] in ~/.config/jgo.conf"
        ) from cause


class _Meter:
    """Adds up the bytes of downloads that run side by side."""

    def __init__(self, progress: Progress, stop: threading.Event) -> None:
        self._progress = progress
        self._stop = stop
        self._lock = threading.Lock()
        self._done = 0
        self._total = 0

    @contextlib.contextmanager
    def file(self, filename: str, size: int) -> Iterator[Callable[[int], None]]:
        """jgo's progress hook: announce a file, then count its bytes as they arrive."""
        self.add(0, size)
        yield lambda count: self.add(count, 0)

    def pause(self, seconds: float) -> None:
        """Wait before another try."""
        if self._stop.wait(seconds):
            raise Interrupted("the download was called off")

    def add(self, done: int, total: int) -> None:
        if self._stop.is_set():
            raise Interrupted("the download was called off")
        with self._lock:
            self._done += done
            self._total += total
            self._progress(self._done, self._total)


def _maven(resolver: Any = None, repositories: Mapping[str, str] | None = None, maven_cache: Path | None = None) -> Any:
    from jgo.config import GlobalSettings
    from jgo.constants import MAVEN_CENTRAL_URL
    from jgo.maven import MavenContext

    settings = GlobalSettings.load()
    return MavenContext(
        resolver=resolver,
        repo_cache=maven_cache or settings.repo_cache,
        remote_repos=dict(repositories) if repositories else {**settings.repositories, "central": MAVEN_CENTRAL_URL},
        timeout=_HTTP_TIMEOUT_S,
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copyfile(source, target)


def _unpack(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as content:
        # Absent before 3.11.4; the archive's hash has been checked either way.
        if hasattr(tarfile, "data_filter"):
            content.extractall(folder, filter="data")
        else:
            content.extractall(folder)


@contextlib.contextmanager
def _exclusive(path: Path, stop: threading.Event) -> Iterator[None]:
    with path.open("a") as file:
        while True:
            try:
                fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if stop.wait(0.2):
                    raise Interrupted("the start was called off while another process was fetching") from None
        yield


def _pin() -> dict[str, Any]:
    """Resolve the versions above and return the content of ``artifacts.json``."""
    import jgo

    context = _maven()
    group, name, version, classifier, packaging = REGISTRY
    registry = context.project(group, name).at_version(version).artifact(classifier, packaging)

    def pinned(found: Sequence[Any]) -> list[dict[str, str]]:
        return [
            {
                "group": a.groupId,
                "name": a.artifactId,
                "version": a.version,
                "classifier": a.classifier,
                "packaging": a.packaging,
                "sha256": _sha256(Path(a.resolve())),
            }
            for a in sorted(found, key=lambda a: (a.groupId, a.artifactId))
        ]

    kafka = jgo.resolve(KAFKA)
    return {
        "kafka": {"version": kafka[0].version, "artifacts": pinned(kafka)},
        "registry": {"version": version, "artifacts": pinned([registry])},
    }


if __name__ == "__main__":
    print(json.dumps(_pin(), indent=1))
