//! `dcgan-train push` and `pull`: models of the Hugging Face Hub.

use anyhow::Context;
use dcgan_cli::{Outcome, UsageError, check_new_folder, print_result};

use crate::cli::{PullArgs, PushArgs};

pub(crate) fn push(args: &PushArgs) -> anyhow::Result<Outcome> {
    let page = dcgan_remote::push(&args.folder, &args.address, args.private, &args.message);
    print_result(&page.map_err(UsageError::because)?)?;
    Ok(Outcome::Done)
}

pub(crate) fn pull(args: &PullArgs) -> anyhow::Result<Outcome> {
    check_new_folder("--out", &args.out)?;
    let mut notes = Vec::new();
    let found = dcgan_remote::pull(&args.address, &mut notes).map_err(UsageError::because)?;
    notes.iter().for_each(|note| tracing::warn!("{note}"));
    // Damaged files are not copied.
    dcgan_model::open(&found, None).map_err(UsageError::because)?;
    std::fs::create_dir_all(&args.out).with_context(|| args.out.display().to_string())?;
    for entry in std::fs::read_dir(&found).with_context(|| found.display().to_string())? {
        let path = entry.with_context(|| found.display().to_string())?.path();
        // Those in the cache are links.
        if path.is_file() {
            let out = args.out.join(path.file_name().unwrap_or_default());
            std::fs::copy(&path, &out).with_context(|| out.display().to_string())?;
        }
    }
    print_result(&args.out.display().to_string())?;
    Ok(Outcome::Done)
}
