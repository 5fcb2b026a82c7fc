//! The committed code is what the protos say.  `UPDATE=1 cargo test -p switchboard-client` writes it anew.

use std::path::{Path, PathBuf};
use std::{env, fs};

fn proto_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(proto_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            files.push(path);
        }
    }
    files.sort();
    files
}

#[test]
fn the_generated_code_is_fresh() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = package.join("../../proto");
    let fresh = tempfile::tempdir().unwrap();
    let mut compiler = protox::Compiler::new([&root]).unwrap();
    compiler.include_imports(true).include_source_info(true);
    compiler.open_files(proto_files(&root)).unwrap();
    tonic_prost_build::configure()
        .build_server(false)
        .out_dir(fresh.path())
        .include_file("mod.rs")
        .compile_fds(compiler.file_descriptor_set())
        .unwrap();

    let committed = package.join("src/gen");
    let update = env::var_os("UPDATE").is_some();
    if update {
        let _ = fs::remove_dir_all(&committed);
        fs::create_dir_all(&committed).unwrap();
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(fresh.path()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_owned();
        let text = fs::read_to_string(&path).unwrap();
        let target = committed.join(&name);
        if update {
            fs::write(&target, &text).unwrap();
        }
        assert!(
            fs::read_to_string(&target).is_ok_and(|old| old == text),
            "{} is stale: run with UPDATE=1",
            target.display()
        );
        names.push(name);
    }
    for entry in fs::read_dir(&committed).unwrap() {
        let name = entry.unwrap().file_name();
        assert!(names.contains(&name), "{name:?} is no longer generated: run with UPDATE=1");
    }
}
