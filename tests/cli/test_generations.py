"""ls, inspect and verify, each on a run and on one generation."""

import json
import math
import shutil

import numpy as np
import pytest

import hpcresume as hr
from hpcresume.checkpoint import generations
from hpcresume.cli.output import printable
from hpcresume.observe.figures import age, size
from tests.cli.conftest import flip_bit
from tests.support.users import unprivileged

NAMES = [f"g{step:012d}-a0001" for step in (10, 20, 30)]


def test_ls_shows_every_generation_and_which_is_newest(cli, cli_json, run):
    code, out, _ = cli("ls", run)
    assert code == 0
    head, *rows = out.splitlines()
    assert head.split()[:4] == ["GENERATION", "STEP", "ATTEMPT", "AGE"]
    assert [row.split()[0] for row in rows] == NAMES
    assert [row.split()[-1] for row in rows] == ["lineage", "lineage", "newest"]
    code, found = cli_json("ls", run)
    assert (code, found["run"], found["done"]) == (0, str(run), False)
    newest = found["generations"][-1]
    assert (newest["step"], newest["attempt"], newest["world_size"]) == (30, 1, 1)
    assert newest["read_back"] == "all"
    assert newest["parent"] == NAMES[1]
    assert newest["bytes"] >= 8000
    assert 0 <= newest["age_seconds"] < 60


def test_ls_reads_each_manifest_once(cli_json, run, monkeypatch):
    read, whole = [], generations.read_sealed
    monkeypatch.setattr(generations, "read_sealed", lambda path: read.append(path.name) or whole(path))
    cli_json("ls", run)
    assert sorted(read) == NAMES


def test_ls_of_one_generation_shows_that_one_with_the_mark_it_has_in_its_run(cli_json, run):
    _, found = cli_json("ls", run / "generations" / NAMES[1])
    assert [(g["name"], g["mark"]) for g in found["generations"]] == [(NAMES[1], "lineage")]


def test_ls_marks_orphans(cli_json, run):
    attempt = run / "attempts" / "0002"
    attempt.mkdir(parents=True)
    (attempt / "start.json").write_text(json.dumps({"generation": NAMES[0], "skipped": []}))
    _, found = cli_json("ls", run)
    assert [g["mark"] for g in found["generations"]] == ["newest", "orphan", "orphan"]
    assert "newer attempt" in found["generations"][2]["reason"]


def test_ls_marks_what_a_restore_found_damaged(cli_json, run):
    attempt = run / "attempts" / "0002"
    attempt.mkdir(parents=True)
    skipped = {"generation": NAMES[2], "reason": "bad bytes", "tensor": "model/w", "offset": 4096}
    (attempt / "start.json").write_text(json.dumps({"generation": NAMES[1], "skipped": [skipped]}))
    _, found = cli_json("ls", run)
    assert [g["mark"] for g in found["generations"]] == ["lineage", "newest", "damaged"]
    assert "byte 4096" in found["generations"][2]["reason"]


def test_ls_shows_a_generation_without_a_whole_manifest_as_damaged(cli, cli_json, run):
    (run / "generations" / NAMES[2] / "manifest.json").write_bytes(b"{}")
    code, found = cli_json("ls", run)
    assert code == 0
    assert [g["mark"] for g in found["generations"]] == ["lineage", "newest", "damaged"]
    assert found["generations"][2]["bytes"] is None
    assert "digest" in cli("ls", run)[1].splitlines()[-1]


def test_ls_of_a_run_without_generations_says_so(cli, cli_json, tmp_path):
    with pytest.raises(hr.errors.UntrackableError):
        hr.save(tmp_path / "new", {"a": {1}}, step=1)
    assert cli("ls", tmp_path / "new")[:2] == (0, "no generations yet\n")
    assert cli_json("ls", tmp_path / "new")[1]["generations"] == []


def lose(run, how):
    shutil.rmtree(run / "generations")
    if how == "emptied":
        (run / "generations").mkdir()
    elif how == "a file":
        (run / "generations").write_text("")


@pytest.mark.parametrize("how", ["emptied", "deleted", "a file"])
@pytest.mark.parametrize("verb", ["ls", "inspect", "verify"])
def test_a_run_that_has_lost_its_generations_is_refused_in_the_words_of_a_restore(cli, run, verb, how):
    lose(run, how)
    with pytest.raises(hr.errors.HpcresumeError) as caught:
        hr.load(run)
    code, out, err = cli(verb, run)
    assert (code, out) == (caught.value.exit_code, "")
    assert err.splitlines()[0] == f"error: {caught.value.what.partition(' on rank')[0]}"
    assert err.splitlines()[-1] == f"try:   {caught.value.hint}"


def test_a_stray_file_among_the_attempts_is_told_and_hides_nothing(cli, cli_json, run):
    (run / "attempts" / "0009").touch()
    (run / "attempts" / "notes.txt").touch()
    code, out, _ = cli("ls", run)
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[1:4]] == NAMES
    assert out.splitlines()[4].startswith("warning: attempt 9 cannot be read: Not a directory")
    code, found = cli_json("ls", run)
    assert [g["mark"] for g in found["generations"]] == ["lineage", "lineage", "newest"]
    assert len(found["warnings"]) == 1
    assert hr.load(run).generation.step == 30


@pytest.mark.parametrize("number", [1, 2])
def test_an_attempt_that_may_not_be_read_is_told_and_hides_nothing(cli, public_run, number):
    (public_run / "attempts" / "0002").mkdir(exist_ok=True)
    (public_run / "attempts" / f"000{number}").chmod(0)
    with unprivileged():
        code, out, _ = cli("ls", public_run)
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[1:4]] == NAMES
    assert f"warning: attempt {number} cannot be read: Permission denied" in out


@pytest.mark.parametrize("verb", ["ls", "inspect", "verify"])
@pytest.mark.parametrize(("part", "mode"), [("", 0), ("run.json", 0), ("generations", 0o311), ("generations", 0)])
def test_a_run_that_may_not_be_read_is_a_run_error_that_says_where(cli, public_run, verb, part, mode):
    path = public_run / part
    before = path.stat().st_mode
    path.chmod(mode)
    with unprivileged():
        code, out, err = cli(verb, public_run)
    path.chmod(before)
    assert (code, out) == (73, "")
    assert str(path) in err.splitlines()[1]
    assert err.splitlines()[2].startswith("try:   ")


def test_verify_goes_on_after_a_generation_that_may_not_be_read(cli, cli_json, public_run):
    (public_run / "generations" / NAMES[0] / "state.h5").chmod(0)
    (public_run / "generations" / NAMES[1] / "manifest.json").chmod(0)
    with unprivileged():
        code, out, _ = cli("verify", public_run)
        _, found = cli_json("verify", public_run)
    assert code == 74
    assert [line.split()[:2] for line in out.splitlines()[:3]] == [
        [NAMES[0], "DAMAGED"], [NAMES[1], "DAMAGED"], [NAMES[2], "ok"],
    ]  # fmt: skip
    assert out.splitlines()[-1] == "1 of 3 generations verify, 2 damaged"
    reasons = [g["damage"][0]["reason"] for g in found["generations"][:2]]
    assert all(reason.startswith("cannot be read: ") and "Permission denied" in reason for reason in reasons)


def test_inspect_of_a_run_says_which_newer_ones_it_passed_over(cli, cli_json, run):
    for name in NAMES[1:]:
        (run / "generations" / name / "manifest.json").write_bytes(b"{}")
    code, out, _ = cli("inspect", run)
    assert code == 0
    assert "step:         10" in out
    told = [line for line in out.splitlines() if line.startswith("skipped:")]
    assert [line.split()[1] for line in told] == [NAMES[2], NAMES[1]]
    found = cli_json("inspect", run)[1]
    assert [each["name"] for each in found["skipped"]] == [NAMES[2], NAMES[1]]
    assert cli_json("inspect", run / "generations" / NAMES[0])[1]["skipped"] == []


def test_a_copied_directory_is_said_to_be_one_and_what_to_do_about_it(cli, run):
    copy = "g000000000099-a0002"
    shutil.copytree(run / "generations" / NAMES[2], run / "generations" / copy)
    assert f"{copy} is damaged: the manifest belongs to step 30 of attempt 1; the entry is a copy" in cli("ls", run)[1]
    assert "removing it is enough" in cli("verify", run)[1]
    for act in (lambda: hr.load(run), lambda: hr.Generations(run).newest()):
        with pytest.raises(hr.errors.NoUsableGenerationError) as caught:
            act()
        assert caught.value.hint.startswith(f"remove {copy} from generations/")
    shutil.rmtree(run / "generations" / copy)
    assert hr.load(run).generation.step == 30


@pytest.mark.parametrize("verb", ["ls", "inspect", "verify"])
def test_an_empty_path_is_no_run_and_not_the_working_directory(cli, run, verb, monkeypatch):
    monkeypatch.chdir(run)
    code, out, err = cli(verb, "")
    assert (code, out) == (78, "")
    assert "is no path" in err
    assert err.splitlines()[-1].startswith("try:   ")


def test_inspect_shows_facts_tensors_and_values(cli, cli_json, run):
    code, out, _ = cli("inspect", run / "generations" / NAMES[0])
    assert code == 0
    for words in ("step:         10", "model/w", "float32", "2000", "replicated", "per-rank", "xxh3-128:", "nan"):
        assert words in out
    _, found = cli_json("inspect", run / "generations" / NAMES[0])
    assert (found["step"], found["world_size"], found["format_version"]) == (10, 1, 1)
    tensors = {t["name"]: t for t in found["tensors"]}
    (generation,) = [g for g in hr.Generations(run).list() if g.step == 10]
    info = generation.tensors["model/w"]
    assert tensors["model/w"] == {
        "name": "model/w", "dtype": "float32", "shape": [2000], "scope": "replicated", "bytes": 8000,
        "digest": info.digest, "file": info.file, "offset": info.offset,
    }  # fmt: skip
    values = {(v["path"], v["rank"]): v["value"] for v in found["values"]}
    assert values[("epoch", None)] == 10
    assert math.isnan(float(values[("rng['loss']", 0)]))
    assert values[("rng['raw']", 0)] == "b'\\x00\\xff'"


def test_inspect_of_a_run_means_its_newest_generation(cli_json, run):
    assert cli_json("inspect", run)[1]["name"] == NAMES[2]


def test_inspect_of_a_damaged_manifest_is_a_typed_error(cli, run):
    manifest = run / "generations" / NAMES[1] / "manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(b'"step":20', b'"step":21'))
    code, out, err = cli("inspect", run / "generations" / NAMES[1])
    assert (code, out) == (74, "")
    assert "digest" in err


def test_verify_reads_every_byte_of_every_generation(cli, cli_json, run):
    code, out, err = cli("verify", run)
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == "3 of 3 generations verify"
    code, found = cli_json("verify", run)
    assert (code, found["ok"]) == (0, True)
    sizes = [(run / "generations" / name / "state.h5").stat().st_size for name in NAMES]
    assert [g["bytes"] for g in found["generations"]] == sizes


def test_verify_names_tensor_and_offset_of_every_damage_and_exits_with_74(cli, cli_json, run):
    offsets = [flip_bit(run / "generations" / NAMES[1], name) for name in ("model/w", "rng/position")]
    code, out, _ = cli("verify", run)
    assert code == 74
    assert "DAMAGED" in out
    assert "2 of 3 generations verify, 1 damaged" in out
    code, found = cli_json("verify", run)
    assert (code, found["ok"]) == (74, False)
    damage = found["generations"][1]["damage"]
    assert [d["tensor"] for d in damage] == ["model/w", "rng/position"]
    for each, offset in zip(damage, offsets, strict=True):
        assert 0 <= offset - each["offset"] < 4 << 20
    assert cli("verify", run / "generations" / NAMES[2])[0] == 0
    assert cli("verify", run / "generations" / NAMES[1])[0] == 74


@pytest.mark.parametrize("what", ["truncated", "missing", "manifest missing", "other version"])
def test_verify_finds_what_is_not_a_wrong_byte_too(cli_json, run, what):
    directory = run / "generations" / NAMES[0]
    data, manifest = directory / "state.h5", directory / "manifest.json"
    if what == "truncated":
        data.write_bytes(data.read_bytes()[:-1])
    elif what == "missing":
        data.unlink()
    elif what == "manifest missing":
        manifest.unlink()
    else:
        _as_version(manifest, 2)
    code, found = cli_json("verify", run)
    assert code == 74
    assert [g["ok"] for g in found["generations"]] == [False, True, True]
    assert found["generations"][0]["damage"][0]["reason"]


def _as_version(path, version):
    from hpcresume.checkpoint.digest import digest_bytes

    body = path.read_bytes()[len(b'{"manifest":') :].rpartition(b',"digest"')[0]
    body = body.replace(b'"format_version":1', b'"format_version":%d' % version)
    path.write_bytes(b'{"manifest":' + body + b',"digest":"xxh3-128:' + digest_bytes(body).hex().encode() + b'"}\n')


def test_verify_of_a_run_that_committed_nothing_vouches_for_nothing(cli, tmp_path):
    with pytest.raises(hr.errors.UntrackableError):
        hr.save(tmp_path / "new", {"a": {1}}, step=1)
    code, _, err = cli("verify", tmp_path / "new")
    assert code == 74
    assert "nothing was ever committed" in err


@pytest.mark.parametrize("verb", ["ls", "inspect", "verify"])
@pytest.mark.parametrize(
    ("path", "code"),
    [("missing", 73), ("empty", 73), ("a-file", 73), ("run/generations/g000000000099-a0001", 74)],
)
def test_a_path_that_is_no_run_or_no_generation_is_a_clear_error(cli, run, tmp_path, verb, path, code):
    (tmp_path / "empty").mkdir()
    (tmp_path / "a-file").write_text("")
    found, out, err = cli(verb, tmp_path / path)
    assert (found, out) == (code, "")
    first, where, *hint = err.splitlines()
    assert first.startswith("error: ")
    assert where.startswith("where: ")
    assert hint[0].startswith("try: ")


def test_a_relative_path_inside_the_run_is_understood(cli_json, run, monkeypatch):
    monkeypatch.chdir(run / "generations" / NAMES[0])
    assert cli_json("inspect", ".")[1]["step"] == 10
    assert len(cli_json("ls", "../..")[1]["generations"]) == 3


def test_nothing_is_written_by_looking(cli, run):
    def everything():
        return {path: path.stat().st_mtime_ns for path in run.rglob("*")}

    before = everything()
    for verb in ("ls", "inspect", "verify"):
        cli(verb, run)
    assert everything() == before


def test_names_that_would_steer_a_terminal_are_escaped(cli, tmp_path):
    hr.save(tmp_path / "r", {"a\x1b[31m": 1, "\ud800": 2}, step=1)
    code, out, _ = cli("inspect", tmp_path / "r")
    assert code == 0
    assert "\x1b" not in out
    assert "a\\x1b[31m" in out


def test_sizes_and_ages_are_written_for_people():
    assert [size(n) for n in (0, 1023, 1536, 5 << 30, 3 << 50)] == [
        "0 B", "1023 B", "1.5 KiB", "5.0 GiB", "3072.0 TiB",
    ]  # fmt: skip
    assert [age(s) for s in (-1, 0.4, 59, 60, 3700, 90_000)] == [
        "0 s", "0 s", "59 s", "1 min", "1 h", "1 d",
    ]  # fmt: skip
    assert printable("é ∞\n\x1b\ud800") == "é ∞\\n\\x1b\\ud800"


@pytest.fixture
def terminal(monkeypatch):
    """Pretend that stdout is a terminal of so many columns."""

    def pretend(columns):
        monkeypatch.setattr("hpcresume.cli.output.on_terminal", lambda stream=None: True)
        monkeypatch.setattr("hpcresume.cli.inspect.on_terminal", lambda: True)
        monkeypatch.setenv("COLUMNS", str(columns))

    return pretend


@pytest.mark.parametrize("columns", [30, 80, 200])
def test_no_word_of_a_table_is_ever_cut(cli, run, terminal, columns):
    terminal(columns)
    _, out, _ = cli("ls", run)
    whole = out.replace("\n", "")
    assert all(name in whole for name in (*NAMES, "ATTEMPT", "READ BACK", "newest"))
    if columns == 80:
        assert max(map(len, out.splitlines())) <= 80


def test_long_names_are_folded_on_a_terminal_and_digests_shortened(cli, tmp_path, terminal):
    name = "a_module_with_a_very_long_name_indeed/" * 3
    hr.save(tmp_path / "r", {"x": {name: np.ones(3)}}, step=1)
    terminal(100)
    code, out, _ = cli("inspect", tmp_path / "r")
    assert code == 0
    table = out[out.index("TENSOR") :].splitlines()
    assert max(len(line.rstrip()) for line in table) <= 100
    assert "…" in out
    (digest,) = [t.digest for t in hr.Generations(tmp_path / "r").newest().tensors.values()]
    assert digest.partition(":")[2][:12] in out
