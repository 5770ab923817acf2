"""The generations of a run, seen by one process: list, newest, lineage, verify."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hpcresume.checkpoint.history import committed_names, ever_committed, lineage_names, read_sealed
from hpcresume.checkpoint.manifest import Sealed
from hpcresume.checkpoint.places import run_path
from hpcresume.checkpoint.reader import FileReader
from hpcresume.checkpoint.restore import none_usable
from hpcresume.checkpoint.run import check_generations, read_run
from hpcresume.errors import ConfigError, DamagedError, NoGenerationError, RunError, StorageAwayError
from hpcresume.io.paths import RunPaths, parse_generation_name
from hpcresume.model import Generation, Skipped, VerifyReport

__all__ = ["Generations", "committed_names", "lineage_names", "read_sealed"]


_List = list[Generation]
_Damage = list[Skipped]


class Generations:
    """The committed generations of the run at `run` (a path), read afresh at each call.

    Raises:
        ConfigError: `run` is no path.
        RunDirectoryError: there is no run at this path.
        FormatVersionError: the run has another format version.
    """

    def __init__(self, run: Path | str) -> None:
        self._run = RunPaths(run_path(run))
        self._run_id: str = read_run(self._run)["run_id"]

    def scan(self) -> tuple[_List, _Damage]:
        """Both `list()` and `damaged()`, for whom each manifest is read once."""
        good, bad = [], []
        for name in committed_names(self._run):
            path = self._run.generations / name
            try:
                good.append(self._read(path).generation(self._run.root, path))
            except (DamagedError, RunError, StorageAwayError) as error:
                bad.append(Skipped(name, error.what))
        return good, bad

    def list(self) -> _List:
        """Every generation whose manifest is whole, ascending by step and attempt; orphans included."""
        return self.scan()[0]

    def damaged(self) -> _Damage:
        """Generations whose manifest is missing, damaged, unreadable, or of another format or run, and why."""
        return self.scan()[1]

    def lineage(self) -> _List:
        """The generations a restore would try, newest first."""
        by_name = {generation.name: generation for generation in self.list()}
        return [by_name[name] for name in lineage_names(self._run) if name in by_name]

    def newest(self) -> Generation | None:
        """The newest generation of the lineage with a whole manifest; None when nothing was ever committed.

        Raises:
            NoUsableGenerationError: generations exist, or existed, and none has a whole manifest.
        """
        chain = self.lineage()
        if chain:
            return chain[0]
        self.check_not_lost()
        if committed_names(self._run):
            raise none_usable(self._run, self.damaged())
        return None

    def check_not_lost(self) -> None:
        """Refuse a run that has committed generations and holds none any more, as a restore does.

        Raises:
            RunDirectoryError: its directory of generations is gone.
            NoUsableGenerationError: the directory is empty, and the attempts tell that it was not.
        """
        check_generations(self._run)
        if not committed_names(self._run) and ever_committed(self._run):
            raise none_usable(self._run)

    def named(self, name: str) -> Generation:
        """The generation of this name.

        Raises:
            NoGenerationError: there is none.
            DamagedError: its manifest is damaged.
        """
        name = _name(name)
        path = self._run.generations / name
        if parse_generation_name(name) is None or not path.is_dir():
            raise NoGenerationError(f"there is no generation {name}", where=str(self._run.root), hint="hpcresume ls")
        return self._read(path).generation(self._run.root, path)

    def _read(self, path: Path) -> Sealed:
        sealed = read_sealed(path)
        sealed.check_run(self._run_id, path.name)
        return sealed

    def verify(
        self, generation: Generation | str, *, progress: Callable[[int, int], None] | None = None
    ) -> VerifyReport:
        """Read every byte of a generation and compare it with its digests; all damage is listed.

        `progress(done, total)` is called with bytes as units are read.

        Raises:
            FormatVersionError: another format version wrote it.
            RunDirectoryError: its files cannot be opened for a reason that is no damage.
        StorageAwayError: the storage does not answer.
        """
        path = self._run.generations / _name(generation)
        try:
            sealed = self._read(path)
            return _verify_files(sealed, path, progress)
        except DamagedError as error:
            return VerifyReport(path.name, 0, 0, (_skipped(path.name, error),))


def _name(given: object) -> str:
    if isinstance(given, Generation):
        return given.path.name
    if not isinstance(given, str):
        what = f"{given!r:.60} is neither a Generation nor the name of one"
        raise ConfigError(what, where="generation", hint="one of hr.Generations(run).list()")
    return given


def _skipped(name: str, error: DamagedError) -> Skipped:
    return Skipped(name, error.what, error.tensor, error.offset)


def _verify_files(sealed: Sealed, path: Path, progress: Callable[[int, int], None] | None) -> VerifyReport:
    damage = []
    units, done, total = 0, 0, sum(file.size for file in sealed.body.files)
    for file in sealed.body.files:
        with FileReader(sealed, path, file) as reader:
            for index, unit in enumerate(reader.units):
                try:
                    reader.check(index)
                except DamagedError as error:
                    damage.append(_skipped(path.name, error))
                units, done = units + 1, done + unit.nbytes
                if progress is not None:
                    progress(done, total)
    return VerifyReport(path.name, units, done, tuple(damage))
