//! Small file systems of a test's own, which can be filled and can fail.
#![allow(dead_code, reason = "a shared harness offers more than each test uses")]

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::tools::{Watchdog, is_root, run, tool};

/// Unmounts what is mounted in `$1`, and removes the folder around it.
const END: &str = r#"umount -l "$1/disk"; rm -rf "$1""#;

/// A mounted file system.  It is gone when this is dropped or the test process ends.
pub struct Disk {
    folder: PathBuf,
    _watchdog: Watchdog,
}

impl Disk {
    /// One in memory, of so many MiB.
    ///
    /// # Panics
    /// When this process is not root's.
    pub async fn in_memory(size: u32) -> Self {
        let disk = Self::empty();
        let size = format!("size={size}m");
        let path = disk.path();
        let args = [
            "-t".as_ref(),
            "tmpfs".as_ref(),
            "-o".as_ref(),
            size.as_ref(),
            "tmpfs".as_ref(),
            path.as_os_str(),
        ];
        run(tool("mount"), args, b"").await.expect_success();
        disk
    }

    /// One of ext4 in a file, of so many MiB, which turns read-only when it notices an error.
    ///
    /// # Panics
    /// When this process is not root's.
    pub async fn in_a_file(size: u64) -> Self {
        let disk = Self::empty();
        let image = disk.image();
        File::create(&image).unwrap().set_len(size * 1024 * 1024).unwrap();
        run(tool("mkfs.ext4"), ["-q".as_ref(), image.as_os_str()], b"").await.expect_success();
        disk.mount().await;
        disk
    }

    fn empty() -> Self {
        assert!(is_root(), "only root mounts file systems: run these tests as root");
        let folder = tempfile::Builder::new().prefix("switchboard-disk-").tempdir().unwrap().keep();
        let watchdog = Watchdog::new(END, [folder.as_os_str()]);
        std::fs::create_dir(folder.join("disk")).unwrap();
        Self { folder, _watchdog: watchdog }
    }

    fn image(&self) -> PathBuf {
        self.folder.join("image")
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.folder.join("disk")
    }

    async fn mount(&self) {
        let (image, path) = (self.image(), self.path());
        let args = ["-o".as_ref(), "loop,errors=remount-ro".as_ref(), image.as_os_str(), path.as_os_str()];
        run(tool("mount"), args, b"").await.expect_success();
    }

    /// Has it notice an error, so that it is read-only from now on, also for files that are open.
    pub async fn fail(&self) {
        let path = self.path();
        let args = ["-n".as_ref(), "-o".as_ref(), "SOURCE".as_ref(), path.as_os_str()];
        let device = run(tool("findmnt"), args, b"").await.expect_success();
        let device = Path::new(device.trim()).file_name().unwrap().to_owned();
        let trigger = Path::new("/sys/fs/ext4").join(device).join("trigger_fs_error");
        std::fs::write(trigger, "a test").unwrap();
    }

    /// As the operator does: unmounts, repairs and mounts it.  Nobody may have a file of it open.
    pub async fn repair(&self) {
        run(tool("umount"), [self.path()], b"").await.expect_success();
        let checked =
            run(tool("e2fsck"), ["-f".as_ref(), "-y".as_ref(), self.image().as_os_str()], b"").await;
        // 1: errors were corrected.
        assert!(matches!(checked.code, Some(0 | 1)), "{checked:?}");
        self.mount().await;
    }

    /// Fills it to the last byte.
    pub fn fill(&self) {
        let mut file = OpenOptions::new().create(true).append(true).open(self.filling()).unwrap();
        for size in [1 << 20, 1 << 12, 1] {
            let block = vec![0xa5; size];
            loop {
                match file.write_all(&block) {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => panic!("the disk can not be filled: {error}"),
                }
            }
        }
    }

    /// Frees what [`Disk::fill`] took.
    pub fn free(&self) {
        std::fs::remove_file(self.filling()).unwrap();
    }

    fn filling(&self) -> PathBuf {
        self.path().join("filling")
    }
}
