import pytest

from kerasvision.files import replacing, write_text


def test_a_block_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "deep" / "file.txt"
    write_text(path, "old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_temporary_name_keeps_the_ending(tmp_path):
    with replacing(tmp_path / "a.weights.h5") as temporary:
        assert temporary.name.endswith(".weights.h5") and temporary.name.startswith(".")
        temporary.write_text("x")
    assert (tmp_path / "a.weights.h5").read_text() == "x"
