//! What a user can do about a job that failed because of its images.

use super::record::Remedy;
use super::resume::ACCEPT_DATA_CHANGE;
use super::worker::JobError;
use crate::inputs::InputsError;
use dcgan_data::DataError;

/// The option of a resume with which a job of `step` steps gets past `error`, if there is one.
pub(super) fn remedy(error: &JobError, step: u64) -> Option<Remedy> {
    let is_unreadable = match error {
        JobError::OtherData { difference } => {
            return Some(Remedy {
                option: ACCEPT_DATA_CHANGE.to_owned(),
                effect: format!(
                    "The images are not those that the job has trained on: {difference}. If they are \
                     accepted, the job uses them from step {step} on, and its result differs from that of a job on \
                     unchanged images."
                ),
            });
        }
        JobError::Train(error) => error.is_unreadable_image(),
        JobError::Inputs(InputsError::Data(error)) => {
            matches!(error, DataError::InvalidRecord { .. } | DataError::Unreadable { .. })
        }
        _ => false,
    };
    is_unreadable.then(|| Remedy {
        option: "skip_bad".to_owned(),
        effect: format!(
            "All images are decoded, and those that cannot be read are left out from step {step} on. After a repair of \
             the images, resume the job as it is."
        ),
    })
}
