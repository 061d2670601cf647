"""Where results, cached embeddings, datasets and weights are kept."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from platformdirs import user_cache_path


@dataclass(frozen=True)
class Workspace:
    """Folders for results, cached embeddings, known datasets and weights. None of them needs to exist.

    Parameters
    ----------
    results
        Runs, tables and reports: `results/<dataset>/<run>/`.
    cache
        The embedding cache, and the index of inspected audio files.
    data
        Known datasets such as `fma_small`, and the rendered demo set.
    weights
        Converted weights, and compiled code of libraries; shared between projects.
    quarantine
        Decisions about single tracks, `quarantine/<dataset>.csv`: written by `mgc data check`, edited by
        people, read by every command. An input, so it is kept apart from `results`, which may be deleted.
    encoders
        An additional folder that is searched for encoders called by a short name, such as
        `efficientat-mn04/`. None if there is no such folder.
    trust_remote_code
        Whether the Python code in an encoder's repository may run. Never read from a file.

    Examples
    --------
    >>> Workspace(results=Path("/tmp/results")).cache
    PosixPath('embeddings_cache')
    """

    results: Path = Path("results")
    cache: Path = Path("embeddings_cache")
    data: Path = Path("data")
    weights: Path = field(default_factory=lambda: user_cache_path("mgc"))
    quarantine: Path = Path("quarantine")
    encoders: Path | None = None
    trust_remote_code: bool = False

    @classmethod
    def from_environment(cls, data: str | None = None, trust_remote_code: bool = False) -> "Workspace":
        """The workspace that the command line uses.

        `$MGC_RESULTS`, `$MGC_EMBEDDINGS_CACHE`, `$MGC_DATA_ROOT`, `$MGC_QUARANTINE` and `$MGC_WEIGHTS`
        replace the default of `results`, `cache`, `data`, `quarantine` and `encoders`; `$XDG_CACHE_HOME`
        moves `weights`. `data`, if given, replaces `$MGC_DATA_ROOT`.
        """

        def folder(variable: str, default: Path) -> Path:
            return Path(os.environ.get(variable) or default)

        return cls(
            results=folder("MGC_RESULTS", cls.results),
            cache=folder("MGC_EMBEDDINGS_CACHE", cls.cache),
            data=Path(data).expanduser() if data else folder("MGC_DATA_ROOT", cls.data),
            quarantine=folder("MGC_QUARANTINE", cls.quarantine),
            encoders=Path(os.environ["MGC_WEIGHTS"]) if os.environ.get("MGC_WEIGHTS") else None,
            trust_remote_code=trust_remote_code,
        )

    def results_of(self, dataset: str) -> Path:
        """The folder of a dataset's results."""
        return self.results / dataset

    def quarantine_file(self, dataset: str) -> Path:
        """The quarantine file of a dataset."""
        return self.quarantine / f"{dataset}.csv"
