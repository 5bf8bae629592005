"""The programs compared, where each comes from, and what of each is measured."""

from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
OURS = "ours"


@dataclass(frozen=True)
class Peer:
    """Another program.

    Attributes:
        title: Its name in the table.
        package: The distribution whose version counts; empty for a program that is run from a checkout.
        parts: Parts of the comparison that it takes part in.
        lock: Stem of its lock in ``locks/``; several entries of one program share one.
        python: Version of Python of its environment.
        source: ``owner/name@commit`` of its checkout.
        command: Its console script, whose ``--help`` is timed.
    """

    title: str
    package: str
    parts: tuple[str, ...]
    lock: str
    python: str = "3.11"
    source: str = ""
    command: str = ""

    @property
    def lock_file(self) -> Path:
        """Versions and hashes of its environment."""
        return HERE / "locks" / f"{self.lock}.lock"


_READS = ("reading", "opening")
PEERS = {
    "openslide": Peer("OpenSlide", "openslide-bin", _READS, "openslide"),
    "cucim": Peer("cuCIM", "cucim-cu12", _READS, "cucim"),
    "cucim-cache": Peer("cuCIM with its cache", "cucim-cu12", ("reading",), "cucim"),
    "pyvips": Peer("pyvips", "pyvips-binary", _READS, "pyvips"),
    "fastslide": Peer("fastslide", "fastslide", _READS, "fastslide"),
    "tiffslide": Peer("tiffslide", "tiffslide", _READS, "tiffslide", "3.12"),
    "slideio": Peer("slideio", "slideio", _READS, "slideio"),
    "torchmil": Peer("torchmil", "torchmil", ("training",), "torchmil"),
    "clam": Peer(
        "CLAM",
        "",
        ("extraction", "training"),
        "clam",
        source="mahmoodlab/CLAM@53e2409d4a8189c682c173382964a85f114f923c",
    ),
    "trident": Peer(
        "TRIDENT",
        "",
        ("extraction", "tissue", "start"),
        "trident",
        source="mahmoodlab/TRIDENT@a91fa8490e0210ebbbe58452c3babe009e0ab7ca",
        command="trident",
    ),
    "stamp": Peer(
        "STAMP",
        "",
        ("extraction", "start"),
        "stamp",
        "3.13",
        source="KatherLab/STAMP@c54ce06739622c127a83eccb35a7082e504b9aef",
        command="stamp",
    ),
    "hs2p": Peer("hs2p", "hs2p", ("tissue",), "hs2p"),
    "lazyslide": Peer("LazySlide", "lazyslide", ("extraction", "tissue"), "lazyslide"),
    "tiatoolbox": Peer(
        "tiatoolbox", "tiatoolbox", ("extraction", "tissue", "start"), "tiatoolbox", command="tiatoolbox"
    ),
    "wsinfer": Peer("wsinfer", "wsinfer", ("tissue",), "wsinfer"),
    "slide2vec": Peer("slide2vec", "slide2vec", ("extraction", "start"), "slide2vec", command="slide2vec"),
}
"""Every peer, by the name that ``--peers`` takes."""
