"""What a DICOM file says about a patient reaches no object, log, warning, error, standard output or file."""

import gzip
import logging
import pickle
import warnings

import nibabel
import numpy as np
import pydicom
import pytest
from click.testing import CliRunner
from medical import make

import kerasvision as kv
from kerasvision.cli import main
from kerasvision.errors import DataError
from kerasvision.medical import dicom, read_volume, segment, write_slices


def secrets_in(content: bytes) -> list[str]:
    return [secret for secret in make.SECRETS if secret.encode() in content]


def everything_below(folder) -> bytes:
    contents = []
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            content = file.read_bytes()
            contents += [str(file.relative_to(folder)).encode(), content]
            if file.name.endswith(".gz"):
                contents.append(gzip.decompress(content))
    return b"\n".join(contents)


def bad_folders(folder):
    """Series that raise errors of every kind."""
    values = make.body((4, 24, 30))
    yield make.write_series(folder / "mixed", values), {"other.dcm": {"series": "9.9"}}
    yield make.write_series(folder / "twice", values), {"other.dcm": {"position": (-10, -20, 30)}}
    yield make.write_series(folder / "gap", values), {"other.dcm": {"position": (-10, -20, 90)}}
    yield make.write_series(folder / "turned", values), {"other.dcm": {"ImageOrientationPatient": [0, 1, 0, 0, 0, 1]}}
    yield make.write_series(folder / "frames", values), {"other.dcm": {"NumberOfFrames": 4}}
    yield make.write_series(folder / "nowhere", values), {"other.dcm": {"ImagePositionPatient": None}}


def test_the_files_do_say_it(tmp_path):
    """The other tests would prove nothing if the secrets were not there to be found."""
    folder = make.write_series(tmp_path / "ct", make.body((2, 24, 30)))
    assert secrets_in(everything_below(folder)) == list(make.SECRETS)
    shown = str(pydicom.dcmread(next(folder.iterdir())))
    assert secrets_in(shown.encode()) == list(make.SECRETS)
    scan = make.write_nifti(tmp_path / "scan.nii", make.body((2, 24, 30)), np.eye(4))
    assert secrets_in(scan.read_bytes()) == ["Zyxgood", "774411", "Vexington"]


def test_only_the_picture_and_its_place_are_read():
    for name in {*dicom._PLACE, *dicom._PIXELS}:
        tag = pydicom.datadict.tag_for_keyword(name)
        # Groups of patient, study and equipment (0008, 0010) are not looked at; series and place are in 0018 and 0020.
        assert (tag >> 16) in (0x0018, 0x0020, 0x0028, 0x7FE0), name
    assert not set(make.PERSONAL) & {*dicom._PLACE, *dicom._PIXELS}


def test_volumes_results_and_sets(tmp_path, caplog, capfd):
    values = make.body((4, 32, 40))
    folder, out = make.write_series(tmp_path / "ct", values), tmp_path / "out"
    scan = make.write_nifti(tmp_path / "scan.nii.gz", values.transpose(2, 1, 0), np.diag([-0.5, -0.8, 2.5, 1]))
    with caplog.at_level(logging.DEBUG), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for source in (folder, scan):
            volume = read_volume(source)
            found = segment(make.predictor(), volume)
            found.write(out / f"{source.name[:4]}.nii.gz")
            found.draw().save(out / "look.png")
            said = [repr(volume), str(volume), repr(found), str(found.to_dict())]
            held = pickle.dumps((volume, found))
            assert not secrets_in("\n".join(said).encode()) and not secrets_in(held)
        for index in range(3):
            make.write_series(tmp_path / "set" / "volumes" / f"case{index}", values)
            volume = read_volume(tmp_path / "set" / "volumes" / "case0")
            labels = (values > 0).astype(np.uint8).transpose(2, 1, 0)
            make.write_nifti(tmp_path / "set" / "labels" / f"case{index}.nii", labels, volume.layout.affine)
        write_slices(tmp_path / "set" / "volumes", tmp_path / "set" / "labels", out / "slices", ["nothing", "body"])
    data = kv.load_data(out / "slices")
    assert sum(len(examples) for examples in data.splits.values()) == 12
    assert not secrets_in(everything_below(out))
    # The files' own headers are not copied.
    assert nibabel.load(out / "scan.nii.gz").header["descrip"].item() == b""
    printed = capfd.readouterr()
    said = [caplog.text, printed.out, printed.err, *(str(each.message) for each in caught)]
    assert not secrets_in("\n".join(said).encode())


def test_errors(tmp_path, caplog, capfd):
    messages = []
    with caplog.at_level(logging.DEBUG):
        for folder, others in bad_folders(tmp_path):
            for name, changes in others.items():
                given = {"position": (-10, -20, 40), **changes}
                make.save(make.dataset(make.body((1, 24, 30))[0], **given), folder / name)
            with pytest.raises(DataError) as raised:
                read_volume(folder)
            messages.append((folder.name, str(raised.value)))
            chain = raised.value.__cause__
            messages.append((folder.name, repr(chain)))
        whole = make.save(make.dataset(make.body((1, 64, 64))[0]), tmp_path / "whole.dcm").read_bytes()
        for end in range(0, len(whole), 97):
            (tmp_path / "cut.dcm").write_bytes(whole[:end])
            with pytest.raises(DataError) as raised:
                read_volume(tmp_path / "cut.dcm")
            messages += [("cut", str(raised.value)), ("cut", repr(raised.value.__cause__))]
    assert len({message for _, message in messages}) > 8
    for name, message in messages:
        assert not secrets_in(message.encode()), (name, message)
    printed = capfd.readouterr()
    assert not secrets_in((caplog.text + printed.out + printed.err).encode())


def test_the_command_line(tmp_path):
    model = kv.create_model(
        "unet",
        labels=["nothing", "body"],
        input_shape=(32, 40, 1),
        backbone="small_cnn",
        backbone_arguments={"filters": [4, 4, 4], "depth": 1},
        levels=["P1", "P2"],
        filters=[4],
    )
    model.save(tmp_path / "model.keras")
    folder = make.write_series(tmp_path / "ct", make.body((3, 32, 40)))
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.dcm").write_bytes(next(folder.iterdir()).read_bytes()[:1500])
    for source, code in ((folder, 0), (tmp_path / "bad", 1)):
        for option in ("--json", "--debug"):
            arguments = ["predict", tmp_path / "model.keras", source, "--out", tmp_path / "out", option]
            result = CliRunner().invoke(main, [str(argument) for argument in arguments])
            assert result.exit_code == code, result.stderr
            assert not secrets_in((result.stdout + result.stderr).encode())
    assert not secrets_in(everything_below(tmp_path / "out"))
