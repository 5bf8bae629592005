"""Named pipes among feature files and annotations: opening one would wait for ever."""

from __future__ import annotations

import os

import pytest

from wsi_ncmi.cohorts.bags import FeatureFolder
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.features.interchange.base import ExternalFileError
from wsi_ncmi.features.interchange.detection import kind_of_folder
from wsi_ncmi.features.interchange.hdf5 import opened
from wsi_ncmi.features.reader import open_features_file, read_identity
from wsi_ncmi.tissue.annotations import read_annotations


def test_a_pipe_is_never_opened(tmp_path):
    pipe = tmp_path / "a.h5"
    os.mkfifo(pipe)
    assert kind_of_folder(tmp_path) == "wsi-ncmi"
    for read in (open_features_file, read_identity, read_annotations):
        with pytest.raises(InputError, match="it is a named pipe, not a file"):
            read(pipe)
    with pytest.raises(ExternalFileError, match="it is a named pipe"), opened(pipe):
        pass
    with pytest.raises(InputError, match=r"a\.h5"):
        FeatureFolder(tmp_path)
