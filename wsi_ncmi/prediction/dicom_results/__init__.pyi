from .source import DicomSource as DicomSource
from .source import check_any_dicom as check_any_dicom
from .source import not_dicom as not_dicom
from .writing import RESULT_FOLDERS as RESULT_FOLDERS
from .writing import results_folder as results_folder
from .writing import write_dicom_results as write_dicom_results
