"""Files of JSON lines, read while they are written and after their writer died."""

from hpcresume.observe.lines import LineTail, read_json_object, read_lines


def test_a_missing_file_has_no_lines(tmp_path):
    assert read_lines(tmp_path / "none").objects == ()
    assert read_json_object(tmp_path / "none") == {}
    assert LineTail(tmp_path / "none").poll() == []


def test_a_torn_last_line_costs_that_line_only(tmp_path):
    file = tmp_path / "ledger.jsonl"
    whole = b'{"a": 1}\n{"a": 2}\n'
    for cut in range(len(whole) + 1):
        file.write_bytes(whole[:cut])
        complete = whole[:cut].count(b"}")
        lines = read_lines(file)
        assert [line["a"] for line in lines.objects] == [1, 2][:complete]
        assert lines.damaged == (1 if whole[:cut].rstrip(b"\n") and not whole[:cut].rstrip().endswith(b"}") else 0)


def test_garbage_between_lines_is_counted_and_passed_over(tmp_path):
    file = tmp_path / "ledger.jsonl"
    file.write_bytes(b'{"a": 1}\n\xff\xfe\x00\n[1, 2]\n' + b"[" * 100_000 + b'\n{"a": 2}\n')
    lines = read_lines(file)
    assert [line["a"] for line in lines.objects] == [1, 2]
    assert lines.damaged == 3


def test_a_follower_waits_for_the_end_of_a_line_and_gives_each_line_once(tmp_path):
    file = tmp_path / "ledger.jsonl"
    tail = LineTail(file)
    with file.open("ab", buffering=0) as out:
        out.write(b'{"a": 1}\n{"a"')
        assert tail.poll() == [{"a": 1}]
        assert tail.poll() == []
        out.write(b": 2}\n")
        assert tail.poll() == [{"a": 2}]
