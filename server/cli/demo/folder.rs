//! The folder of the demo's database, which does not outlive the demo.

use std::path::{Path, PathBuf};
use std::{fs, io};

/// Names to try before giving up; each demo of one machine that runs at the same time takes one.
const ATTEMPTS: u32 = 1_000;

/// A new folder that nobody else may read; it is removed when this is dropped, whatever the way out.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// Makes one inside `parent`.
    ///
    /// # Errors
    /// When nothing can be made there.
    pub fn new(parent: &Path) -> io::Result<Self> {
        let process = std::process::id();
        for attempt in 0..ATTEMPTS {
            let path = parent.join(format!("switchboard-demo-{process}-{attempt}"));
            // Fails if the name is taken, so that the removal never meets what somebody else made.
            match builder().create(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::new(io::ErrorKind::AlreadyExists, "every name for a new folder is taken"))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "the demo's folder could not be removed");
        }
    }
}

#[cfg(unix)]
fn builder() -> fs::DirBuilder {
    use std::os::unix::fs::DirBuilderExt;
    let mut builder = fs::DirBuilder::new();
    // It holds keys.
    builder.mode(0o700);
    builder
}

#[cfg(not(unix))]
fn builder() -> fs::DirBuilder {
    fs::DirBuilder::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_folders_differ_and_both_go_with_what_is_in_them() {
        let parent = tempfile::tempdir().unwrap();
        let (one, other) = (Folder::new(parent.path()).unwrap(), Folder::new(parent.path()).unwrap());
        assert_ne!(one.path(), other.path());
        fs::write(one.path().join("file"), "text").unwrap();
        drop((one, other));
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }
}
