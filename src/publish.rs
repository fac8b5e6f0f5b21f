//! To be replaced.
#![allow(missing_docs)]
use std::path::{Path, PathBuf};
pub struct Refusal {
    pub what: String,
    pub next: String,
}
pub struct PublishError {
    pub what: String,
    pub next: String,
}
pub struct Site {
    public_dir: PathBuf,
}
pub struct Staged {
    path: PathBuf,
}
impl Staged {
    pub fn path(&self) -> &Path {
        &self.path
    }
}
pub fn check(
    public_dir: &Path,
    _w: &Path,
    _g: &Path,
    _p: &Path,
    _paths: &[PathBuf],
    _h: Option<&Path>,
) -> Result<Site, Refusal> {
    Ok(Site { public_dir: public_dir.into() })
}
impl Site {
    pub fn public_dir(&self) -> &Path {
        &self.public_dir
    }
    pub fn stage(&self) -> Result<Staged, PublishError> {
        let _ = std::fs::create_dir_all(&self.public_dir);
        Ok(Staged { path: self.public_dir.clone() })
    }
    pub fn publish(&self, _s: Staged) -> Result<(), PublishError> {
        Ok(())
    }
    pub fn empty(&self) -> Result<(), PublishError> {
        Ok(())
    }
}
