//! Options of reading images that all programs share (feature `clap`).

use clap::Args;

use crate::background::Background;
use crate::options::{OpenOptions, UnreadableImages};
use crate::pixel_cache::default_cache_folder;
use crate::shape::ImageShape;

/// How images are read, to be flattened into the arguments of a command.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct ReadArgs {
    /// Composite images with alpha on this color for 1 and 3 channels: black, white or #rrggbb
    #[arg(long, value_name = "COLOR", default_value_t)]
    pub background: Background,
    /// Skip unreadable images and count them (decodes every image)
    #[arg(long)]
    pub skip_bad: bool,
}

impl ReadArgs {
    /// The options of opening a dataset for images of `shape`.
    pub fn options(&self, shape: ImageShape) -> OpenOptions {
        let unreadable_images = if self.skip_bad { UnreadableImages::Skip } else { UnreadableImages::Fail };
        OpenOptions {
            background: self.background,
            unreadable_images,
            index_folder: default_cache_folder(),
            ..OpenOptions::new(shape)
        }
    }

    /// The options given that have no effect on the embedded digits, as messages for a command without --data.
    pub fn faults_without_data(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.background != Background::BLACK {
            faults.push("--background needs --data: the embedded digits have no alpha".to_owned());
        }
        if self.skip_bad {
            faults.push("--skip-bad needs --data: the embedded digits are all readable".to_owned());
        }
        faults
    }
}
