"""What the stack runs on is fetched whole, checked, and fetched again when it is not right."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from penstock.stack.artifacts import Artifact, ArtifactStore, Bundle, load_bundles
from penstock.stack.errors import ArtifactError, Interrupted

JAR = b"the bytes of a jar" * 1000


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        return


class Maven:
    """A Maven repository on the loopback interface, and a store that fetches from it."""

    def __init__(self, served: Path, port: int, home: Path) -> None:
        self.served = served
        self.cache = home / "m2"
        self.store = ArtifactStore(
            home / "store", repositories={"here": f"http://127.0.0.1:{port}"}, maven_cache=self.cache
        )

    def publish(self, name: str, content: bytes, packaging: str = "jar") -> Artifact:
        artifact = Artifact("org.example", name, "1.0", hashlib.sha256(content).hexdigest(), packaging=packaging)
        path = self.served / "org" / "example" / name / "1.0" / artifact.filename
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
        return artifact

    def cached(self, artifact: Artifact) -> Path:
        return self.cache / "org" / "example" / artifact.name / "1.0" / artifact.filename

    def install(self, *artifacts: Artifact, stop: threading.Event | None = None) -> Path:
        return self.store.install(
            Bundle("thing", "1.0", artifacts), lambda done, total: None, stop or threading.Event()
        )


@pytest.fixture
def maven(tmp_path: Path) -> Iterator[Maven]:
    served = tmp_path / "served"
    served.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(served))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield Maven(served, server.server_port, tmp_path)
        server.shutdown()
        thread.join()


def test_the_pinned_bundles_are_complete() -> None:
    bundles = load_bundles()
    assert {name: bundle.version for name, bundle in bundles.items()} == {"kafka": "4.3.1", "registry": "3.3.3"}
    for bundle in bundles.values():
        assert all(len(bytes.fromhex(artifact.sha256)) == 32 for artifact in bundle.artifacts)
    jars = {artifact.name for artifact in bundles["kafka"].artifacts}
    assert {"kafka_2.13", "kafka-clients", "kafka-storage", "scala-library", "slf4j-simple", "zstd-jni"} <= jars


def test_jars_are_installed_side_by_side_and_only_once(maven: Maven) -> None:
    one, two = maven.publish("one", JAR), maven.publish("two", JAR * 2)
    folder = maven.install(one, two)
    assert (folder / "one-1.0.jar").read_bytes() == JAR
    assert (folder / "two-1.0.jar").read_bytes() == JAR * 2
    for path in maven.served.rglob("*.jar"):
        path.unlink()
    assert maven.install(one, two) == folder


def test_an_archive_is_unpacked(maven: Maven) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        entry = tarfile.TarInfo("lib/inner.jar")
        entry.size = len(JAR)
        archive.addfile(entry, io.BytesIO(JAR))
    folder = maven.install(maven.publish("app", packed.getvalue(), packaging="tar.gz"))
    assert (folder / "lib" / "inner.jar").read_bytes() == JAR


def test_a_file_cut_short_in_the_cache_is_fetched_again(maven: Maven) -> None:
    artifact = maven.publish("one", JAR)
    maven.cached(artifact).parent.mkdir(parents=True)
    maven.cached(artifact).write_bytes(JAR[:100])
    assert (maven.install(artifact) / "one-1.0.jar").read_bytes() == JAR


def test_a_file_with_another_hash_is_refused_and_leaves_nothing_behind(maven: Maven) -> None:
    artifact = maven.publish("one", JAR)
    next(maven.served.rglob("one-1.0.jar")).write_bytes(b"something else")
    with pytest.raises(ArtifactError, match=r"one-1\.0\.jar from http://127.* SHA-256 .* mirror"):
        maven.install(artifact)
    assert not maven.cached(artifact).exists()
    assert not list((maven.store._root).glob("thing-*/*"))


def test_a_missing_file_names_the_repository_and_the_remedy(maven: Maven) -> None:
    absent = Artifact("org.example", "absent", "1.0", "0" * 64)
    with pytest.raises(ArtifactError, match=r"absent-1\.0\.jar from http://127\.0\.0\.1.*check the network"):
        maven.install(absent)


def test_a_start_that_was_called_off_fetches_nothing(maven: Maven) -> None:
    stop = threading.Event()
    stop.set()
    artifact = maven.publish("one", JAR)
    with pytest.raises(Interrupted):
        maven.install(artifact, stop=stop)
    assert not maven.cached(artifact).exists()


def test_another_hash_is_another_folder() -> None:
    first = Bundle("kafka", "1", (Artifact("g", "a", "1", "0" * 64),))
    second = Bundle("kafka", "1", (Artifact("g", "a", "1", "1" * 64),))
    assert first.folder != second.folder
