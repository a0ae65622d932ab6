//! Models of the Hugging Face Hub.

use std::path::{Path, PathBuf};

#[cfg(feature = "hub")]
use hf_hub::{HFClientSync, HFError, RepoTypeModel};

/// The scheme of URLs.
const SCHEME: &str = "hf://";

/// The files of a model: nothing else is copied, in either direction.
#[cfg(feature = "hub")]
const FILES: [&str; 5] = ["config.json", "README.md", "*.safetensors", "*.png", "LICENSE*"];

#[cfg(feature = "hub")]
const NETWORKS: [&str; 2] = ["generator.safetensors", "discriminator.safetensors"];

/// Why a model of the Hub cannot be had or stored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// The program has no code for it.
    #[error("{address}: this program was built without the feature hub: cargo install --features hub")]
    NotBuilt {
        /// The URL.
        address: String,
    },
    /// The URL is not that of a model.
    #[error("{address}: expected hf://OWNER/NAME, or hf://OWNER/NAME@REVISION")]
    Address {
        /// The URL.
        address: String,
    },
    /// The folder is not to be stored.
    #[error("{}: {problem}", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// The problem and its fix.
        problem: String,
    },
    /// The Hub cannot be reached, or refuses.
    #[error("{address}: {problem}")]
    Hub {
        /// The URL.
        address: String,
        /// What the Hub or the connection says, and what may help.
        problem: String,
    },
}

/// Whether `path` is the URL of a model of the Hub.
pub fn is_hub_address(path: &Path) -> bool {
    path.to_str().is_some_and(|text| text.starts_with(SCHEME))
}

/// The URL of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubAddress {
    /// A user or an organization.
    pub owner: String,
    /// The name of the model.
    pub name: String,
    /// A branch, a tag or a commit; none for the main branch.
    pub revision: Option<String>,
}

impl HubAddress {
    /// Reads `hf://owner/name` or `hf://owner/name@revision`.
    ///
    /// # Errors
    /// [`HubError::Address`].
    pub fn parse(text: &str) -> Result<Self, HubError> {
        let fault = || HubError::Address { address: text.to_owned() };
        let rest = text.strip_prefix(SCHEME).ok_or_else(fault)?;
        let (repository, revision) = match rest.split_once('@') {
            Some((repository, revision)) => (repository, Some(revision.to_owned())),
            None => (rest, None),
        };
        let (owner, name) = repository.split_once('/').ok_or_else(fault)?;
        // What the Hub accepts in names; it also keeps paths and queries out of URLs.
        let is_name = |name: &str| {
            let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            !name.is_empty() && name.chars().all(allowed) && !name.starts_with('.')
        };
        if !is_name(owner) || !is_name(name) || revision.as_ref().is_some_and(String::is_empty) {
            return Err(fault());
        }
        Ok(Self { owner: owner.to_owned(), name: name.to_owned(), revision })
    }
}

/// The folder with the files of the model at `address`, in the cache of the Hub's own programs (`HF_HOME`). They are
/// copied if they are not there, or others than those of the Hub. If the Hub cannot be reached, files that are there
/// are used. `notes` gets what is worth saying.
///
/// # Errors
/// [`HubError`].
#[cfg(feature = "hub")]
pub fn pull(address: &str, notes: &mut Vec<String>) -> Result<PathBuf, HubError> {
    let model = HubAddress::parse(address)?;
    let client = client(address)?;
    let repository = client.model(model.owner, model.name);
    let download = repository.snapshot_download().maybe_revision(model.revision.clone());
    match download.allow_patterns(files()).ignore_patterns(folders()).send() {
        Ok(folder) => {
            // Without it the folder may be taken for complete for a while: not an error.
            let _ = std::fs::write(complete(&folder), "");
            Ok(folder)
        }
        Err(error @ HFError::Request { .. }) => {
            let kept = repository.snapshot_download().maybe_revision(model.revision.clone());
            let folder = kept.local_files_only(true).send().map_err(|_| fault(address, &error))?;
            // A branch names a commit when all its files are there; of a commit, some may be missing.
            let is_commit = model.revision.is_some_and(|revision| folder.ends_with(revision));
            if is_commit && !complete(&folder).is_file() {
                return Err(fault(address, &error));
            }
            notes.push(format!(
                "{address}: the Hub cannot be reached, the files in {} are used",
                folder.display()
            ));
            Ok(folder)
        }
        Err(error) => Err(fault(address, &error)),
    }
}

/// The file that says that all files of a commit are in `folder`.
#[cfg(feature = "hub")]
fn complete(folder: &Path) -> PathBuf {
    folder.with_extension("dcgan-complete")
}

/// Stores the model in `folder` at `address`, which is created if it is not there, and returns the URL of its page.
/// `folder` is one that `dcgan-train export --to hub` wrote: its card says the license.
///
/// # Errors
/// [`HubError`].
#[cfg(feature = "hub")]
pub fn push(folder: &Path, address: &str, is_private: bool, message: &str) -> Result<String, HubError> {
    let model = HubAddress::parse(address)?;
    let refuse = |problem: &str| HubError::Folder { folder: folder.to_owned(), problem: problem.to_owned() };
    if !folder.join("config.json").is_file() {
        return Err(refuse("it is not a model folder; write one with `dcgan-train export MODEL --to hub`"));
    }
    let card = std::fs::read_to_string(folder.join("README.md")).unwrap_or_default();
    if !card.starts_with("---\n") {
        return Err(refuse("its card has no license; write one with `dcgan-train export MODEL --to hub`"));
    }
    let client = client(address)?;
    let id = format!("{}/{}", model.owner, model.name);
    let create = client.create_repository().repo_id(&id).repo_type(RepoTypeModel).private(is_private);
    create.exist_ok(true).send().map_err(|error| fault(address, &error))?;
    let repository = client.model(model.owner, model.name);
    if is_private {
        // A repository that was there keeps its visibility.
        let found = repository.info().send().map_err(|error| fault(address, &error))?;
        if found.private != Some(true) {
            let problem =
                "it is there and public: make it private on its page, or leave out --private".to_owned();
            return Err(HubError::Hub { address: address.to_owned(), problem });
        }
    }
    // A network that the model no longer has.
    let removed = NETWORKS.iter().filter(|name| !folder.join(name).is_file()).map(|name| (*name).to_owned());
    let upload = repository.upload_folder().folder_path(folder).commit_message(message);
    let upload = upload.allow_patterns(files()).ignore_patterns(folders()).delete_patterns(removed.collect());
    let commit = upload.maybe_revision(model.revision).send().map_err(|error| fault(address, &error))?;
    Ok(commit.commit_url.unwrap_or_else(|| address.to_owned()))
}

#[cfg(feature = "hub")]
fn files() -> Vec<String> {
    FILES.map(str::to_owned).to_vec()
}

/// Files in folders: `*` matches slashes as well.
#[cfg(feature = "hub")]
fn folders() -> Vec<String> {
    vec!["*/*".to_owned()]
}

#[cfg(feature = "hub")]
fn client(address: &str) -> Result<HFClientSync, HubError> {
    HFClientSync::new().map_err(|error| fault(address, &error))
}

/// An error of the Hub with what may help. Tokens are in headers, which no message has.
#[cfg(feature = "hub")]
fn fault(address: &str, error: &HFError) -> HubError {
    let fix = match error {
        HFError::AuthRequired { .. } | HFError::Forbidden { .. } => {
            "; set HF_TOKEN to a token of huggingface.co/settings/tokens that may do this"
        }
        HFError::RepoNotFound { .. } => "; a private model needs HF_TOKEN",
        HFError::Request { .. } => "; HF_ENDPOINT names another server than https://huggingface.co",
        _ => "",
    };
    HubError::Hub { address: address.to_owned(), problem: format!("{error}{fix}") }
}

/// Without the feature `hub`.
///
/// # Errors
/// [`HubError::NotBuilt`].
#[cfg(not(feature = "hub"))]
pub fn pull(address: &str, _notes: &mut Vec<String>) -> Result<PathBuf, HubError> {
    Err(HubError::NotBuilt { address: address.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let parsed = |text| HubAddress::parse(text).map(|found| (found.owner, found.name, found.revision));
        let model =
            |revision: Option<&str>| ("me".to_owned(), "my-faces.v1".to_owned(), revision.map(str::to_owned));
        assert_eq!(parsed("hf://me/my-faces.v1").unwrap(), model(None));
        assert_eq!(parsed("hf://me/my-faces.v1@refs/pr/1").unwrap(), model(Some("refs/pr/1")));
        for text in [
            "hf://me",
            "hf://me/",
            "hf:///x",
            "hf://me/a/b",
            "hf://me/..",
            "hf://me/a@",
            "hf://me/a?b",
            "me/a",
            "",
        ] {
            assert!(parsed(text).is_err(), "{text}");
        }
        assert!(is_hub_address(Path::new("hf://me/x")) && !is_hub_address(Path::new("hf/me/x")));
    }
}
