//! Generates the server's side of the contract from `proto/`, without protoc: protox reads the files, the descriptor is
//! kept for reflection and for the scope options, and tonic's generator writes the code to `OUT_DIR`.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

use prost::Message;

const FRAME: &str = "crate::event::rpc::frame::Frame";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new("proto");
    // The generator does not say it, and without it every build would run this again.
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=migrations");

    let mut compiler = protox::Compiler::new([root])?;
    compiler.include_imports(true).include_source_info(true);
    compiler.open_files(proto_files(root)?)?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    // Encoded by protox itself: the custom options, which prost's own types drop, are still in it.
    fs::write(out.join("descriptor.bin"), compiler.encode_file_descriptor_set())?;

    let descriptor = prost_types_of(&compiler.encode_file_descriptor_set())?;
    tonic_prost_build::configure()
        .build_client(false)
        .codec_path("crate::rpc::codec::Codec")
        // These are made of pieces that were encoded once for all who read them.
        .extern_path(".switchboard.notification.v1.SubscribeResponse", FRAME)
        .extern_path(".switchboard.webhook.v1.PullWebhookEventsResponse", FRAME)
        // They carry a secret; `server/pb.rs` has their Debug.
        .skip_debug([
            ".switchboard.webhook.v1.CreateWebhookResponse",
            ".switchboard.apikey.v1.CreateApiKeyResponse",
            ".switchboard.apikey.v1.RotateApiKeyResponse",
            ".switchboard.apikey.v1.VerifyApiKeyRequest",
            ".switchboard.settings.v1.UpdateSettingsRequest",
            ".switchboard.settings.v1.ExportSettingsRequest",
            ".switchboard.settings.v1.ImportSettingsRequest",
            ".switchboard.email.v1.TestSmtpRequest",
        ])
        .include_file("contract.rs")
        .compile_fds(descriptor)?;
    Ok(())
}

fn prost_types_of(bytes: &[u8]) -> Result<tonic_prost_build::FileDescriptorSet, prost::DecodeError> {
    tonic_prost_build::FileDescriptorSet::decode(bytes)
}

fn proto_files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(proto_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
