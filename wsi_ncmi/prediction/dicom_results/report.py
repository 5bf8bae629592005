"""The answer for a slide as a structured report, template TID 1500.

Source: DICOM PS3.16, TID 1500 (Measurement Report) and TID 1501 (Measurement Group).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wsi_ncmi.prediction.dicom_results.codes import class_code, private_code
from wsi_ncmi.prediction.slide_prediction import ABSTAIN, SlidePrediction

if TYPE_CHECKING:
    from highdicom.sr import ComprehensiveSR, TextContentItem

    from wsi_ncmi.prediction.bundle import ModelBundle
    from wsi_ncmi.prediction.dicom_results.source import DicomSource

RESEARCH_USE = "For research use only. Not a medical device; not for diagnosis."


def answer_report(
    source: DicomSource,
    prediction: SlidePrediction,
    bundle: ModelBundle,
    *,
    observer_uid: str,
    tracking_uid: str,
    **common: Any,
) -> ComprehensiveSR:
    """Class, probabilities, decision or abstention, flags and the model.

    Args:
        source: The slide's own objects.
        prediction: The answer.
        bundle: The model.
        observer_uid: UID of the model as the observer.
        tracking_uid: UID of the answer.
        **common: What all results share (series, equipment, …), as highdicom takes it.
    """
    from highdicom import sr
    from pydicom.sr.codedict import codes

    numbers: list[tuple[sr.CodedConcept, float | None]] = [
        (class_code("p", name), p) for name, p in prediction.probabilities.items()
    ]
    numbers.append((private_code("agreement"), prediction.agreement))
    numbers.append((private_code("tiles"), prediction.tiles))
    numbers.append((private_code("ood_score"), prediction.ood_score))
    abstained = prediction.decision == ABSTAIN
    decision = private_code("abstain") if abstained else class_code("c", prediction.decision)
    findings = [("prediction", class_code("c", prediction.prediction)), ("decision", decision)]
    findings += [("ood", private_code(name)) for name in prediction.flag_names]
    content = sr.MeasurementReport(
        observation_context=sr.ObservationContext(
            observer_device_context=sr.ObserverContext(
                observer_type=codes.DCM.Device,
                observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
                    uid=observer_uid,
                    name=common["manufacturer"],
                    manufacturer_name=common["manufacturer"],
                    model_name=common["manufacturer_model_name"],
                    serial_number=bundle.digest,
                ),
            )
        ),
        procedure_reported=codes.DCM.WholeSlideImaging,
        referenced_images=source.full_size,
        imaging_measurements=[
            sr.MeasurementsAndQualitativeEvaluations(
                tracking_identifier=sr.TrackingIdentifier(
                    uid=tracking_uid, identifier="Answer for the slide"
                ),
                algorithm_id=sr.AlgorithmIdentification(
                    name=bundle.name,
                    version=common["software_versions"],
                    manufacturer=common["manufacturer"],
                    family=codes.DCM.ArtificialIntelligence,
                    parameters=[f"model digest (SHA-256): {bundle.digest}"],
                ),
                measurements=[
                    sr.Measurement(name, float(value), codes.UCUM.NoUnits)
                    for name, value in numbers
                    if value is not None
                ],
                qualitative_evaluations=[
                    sr.QualitativeEvaluation(private_code(name), value) for name, value in findings
                ],
                source_images=[
                    sr.SourceImageForMeasurementGroup(image.SOPClassUID, image.SOPInstanceUID)
                    for image in source.full_size
                ],
            )
        ],
    )
    assert prediction.confidence is not None  # there are tiles
    shown = bundle.calibration.shown(prediction.confidence, prediction.prediction)
    texts = [("confidence", shown), ("reason", prediction.reason)]
    texts += [("ood_detail", flag.words) for flag in prediction.flags]
    group = content[0].ContentSequence[-1].ContentSequence[0]
    group.ContentSequence.extend(_text(name, text) for name, text in texts if text)
    about = [("use", RESEARCH_USE), ("use", bundle.intended_use), ("limits", bundle.limits)]
    content[0].ContentSequence.extend(_text(name, text) for name, text in about if text)
    for element in content[0].iterall():
        if element.keyword == "ContinuityOfContent":
            element.value = "SEPARATE"  # else readers show values without their names, as running text
    return sr.ComprehensiveSR(
        evidence=list(source.full_size),
        content=content,
        is_complete=True,
        is_final=False,
        is_verified=False,
        **common,
    )


def _text(name: str, text: str) -> TextContentItem:
    from highdicom.sr import RelationshipTypeValues, TextContentItem

    return TextContentItem(private_code(name), text, RelationshipTypeValues.CONTAINS)
