//! `dcgan-train animate`.

use crate::cli::AnimateArgs;
use anyhow::Context;
use dcgan_base::files::AtomicFile;
use dcgan_cli::{Logging, Outcome, Results, UsageError, check_output};
use dcgan_data::gif::{Animation, read_frame};
use dcgan_train::run_folder::RunFolder;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// How long the last grid stays before the animation starts over.
const LAST_FRAME: Duration = Duration::from_secs(2);

pub(crate) fn run(args: &AnimateArgs, logging: &Logging) -> anyhow::Result<Outcome> {
    let mut faults = Vec::new();
    if !(1..=16).contains(&args.scale) {
        faults.push(format!("--scale is {}, expected 1 to 16", args.scale));
    }
    if !(1..=50).contains(&args.fps) {
        faults.push(format!("--fps is {}, expected 1 to 50", args.fps));
    }
    faults.extend(UsageError::faults_of(check_output("--out", &args.out, &["gif"])));
    let grids = match RunFolder::open(&args.run) {
        Ok((folder, _)) => grids(&folder),
        Err(error) => {
            faults.push(error.to_string());
            Vec::new()
        }
    };
    if faults.is_empty() && grids.is_empty() {
        faults.push(format!("{} has no sample grids yet", args.run.display()));
    }
    if !faults.is_empty() {
        return Err(UsageError { faults }.into());
    }
    let results = Results::new(logging, false, &[Some(&args.out)])?;
    let named = || args.out.display().to_string();
    let mut file = AtomicFile::create(&args.out).with_context(named)?;
    let mut animation = Animation::new(&mut file)?;
    let delay = Duration::from_secs(1) / args.fps;
    for (i, path) in grids.iter().enumerate() {
        // One frame in memory at a time.
        let frame = read_frame(path).with_context(|| path.display().to_string())?.enlarged(args.scale);
        let delay = if i + 1 == grids.len() { delay.max(LAST_FRAME) } else { delay };
        animation.write(&frame, delay).with_context(|| path.display().to_string())?;
    }
    animation.finish();
    file.commit().with_context(named)?;
    results.text(&format!("{} frames in {}", grids.len(), args.out.display()))?;
    Ok(Outcome::Done)
}

/// The sample grids of a run, by the number of images read.
fn grids(folder: &RunFolder) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder.samples()).into_iter().flatten().flatten();
    let number = |path: &PathBuf| path.file_stem()?.to_str()?.parse::<u64>().ok();
    let png = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "png");
    let mut grids: Vec<(u64, PathBuf)> = entries
        .map(|entry| entry.path())
        .filter(png)
        .filter_map(|path| Some((number(&path)?, path)))
        .collect();
    grids.sort();
    grids.into_iter().map(|(_, path)| path).collect()
}
