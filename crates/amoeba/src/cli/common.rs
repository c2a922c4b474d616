//! What several verbs share: device flags, finding a model, loading it with a progress bar.
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use amoeba::{Activations, Device, Hub, KvType, LoadOptions, Model, PathChoice, RepackCache};
use amoeba_engine::{Checked, KernelCache};
use amoeba_kernels::simd::Isa;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::console::{self, Console};
use super::failure::Failure;
use super::memory::Need;

/// Flags that say where and how a model runs.
#[derive(clap::Args, Clone, Debug, Default)]
#[command(next_help_heading = "Device")]
pub struct DeviceArgs {
    #[command(flatten)]
    pub place: PlaceArgs,
    /// Worker threads [default: one per core]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
}

impl DeviceArgs {
    /// As the engine wants them.
    pub fn options(&self, context: Option<usize>) -> LoadOptions {
        self.place.options(self.threads.map(usize::from), context)
    }
}

/// Flags that say where and how a model runs, but for the number of threads.
#[derive(clap::Args, Clone, Debug, Default)]
#[command(next_help_heading = "Device")]
pub struct PlaceArgs {
    /// Where to run: auto is a GPU that the model fits on, else the CPU; cuda:N is GPU number N; reference is
    /// exact and slow
    #[arg(long, value_name = "DEVICE", default_value = "auto", value_parser = Devices)]
    pub device: Device,
    /// Path through the experts
    #[arg(long, value_name = "PATH", default_value = "auto", value_parser = paths())]
    pub path: PathChoice,
    /// Keep packed weights (as large as the model) in ~/.cache/amoeba/packed, so that later loads are faster.
    /// Above GB gigabytes in all, the least recently used are deleted
    #[arg(long, value_name = "GB", num_args = 0..=1, require_equals = true, default_missing_value = "64")]
    pub repack_cache: Option<u32>,
    /// Type of the KV cache: f16 halves its memory and keeps 11 bits of precision
    #[arg(long, value_name = "TYPE", default_value = "f32", value_parser = kv_types())]
    pub kv_cache: KvType,
    /// Precision of activations in products with quantised weights: int16 and int8 prefill faster, with 16
    /// and 8 bits of precision (llama.cpp uses 8)
    #[arg(long, value_name = "TYPE", default_value = "f32", value_parser = activations())]
    pub activations: Activations,
    /// Instruction set [default: the widest of this machine]
    #[arg(long, hide = true, value_parser = isa)]
    pub isa: Option<Isa>,
}

impl PlaceArgs {
    /// As the engine wants them.
    pub fn options(&self, threads: Option<usize>, context: Option<usize>) -> LoadOptions {
        LoadOptions {
            device: self.device,
            threads,
            isa: self.isa,
            path: self.path,
            context,
            kv: self.kv_cache,
            activations: self.activations,
            repack_cache: self.repack_cache.and_then(repack_cache),
            kernel_cache: kernel_cache(),
            notice,
            ..LoadOptions::default()
        }
    }
}

/// The folder `amoeba` in the user's cache folder.
pub fn cache_folder() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")));
    home.or_else(|| set("LOCALAPPDATA")).map(|home| home.join("amoeba"))
}

fn notice(text: &str) {
    console::say(&format!("note: {text}\n"));
}

/// Most bytes of compiled kernels that are kept: those of some tens of models.
const KERNEL_BYTES_MAX: u64 = 512_000_000;

/// Where compiled kernels are kept.
pub fn kernel_cache() -> Option<KernelCache> {
    Some(KernelCache { dir: cache_folder()?.join("kernels"), bytes_max: KERNEL_BYTES_MAX })
}

fn repack_cache(gigabytes: u32) -> Option<RepackCache> {
    match cache_folder() {
        Some(folder) => {
            let bytes_max = u64::from(gigabytes) * 1_000_000_000;
            Some(RepackCache { dir: folder.join("packed"), bytes_max })
        }
        None => {
            notice("packed weights are not kept: there is no cache folder; set XDG_CACHE_HOME");
            None
        }
    }
}

/// Names of devices: those that help lists, and `cuda:N`.
#[derive(Clone)]
struct Devices;

impl Devices {
    fn names() -> PossibleValuesParser {
        PossibleValuesParser::new(Device::NAMES.map(|(name, _)| name))
    }
}

impl TypedValueParser for Devices {
    type Value = Device;

    fn parse_ref(
        &self,
        command: &clap::Command,
        arg: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<Device, clap::Error> {
        match value.to_str().and_then(|name| name.parse().ok()) {
            Some(device) => Ok(device),
            None => Devices::names().parse_ref(command, arg, value).map(|_| Device::default()),
        }
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        let names: Vec<PossibleValue> = Devices::names().possible_values()?.collect();
        Some(Box::new(names.into_iter()))
    }
}

fn paths() -> impl TypedValueParser<Value = PathChoice> {
    PossibleValuesParser::new(["auto", "fused", "unfused"]).map(|name| match name.as_str() {
        "fused" => PathChoice::Fused,
        "unfused" => PathChoice::Unfused,
        _ => PathChoice::Auto,
    })
}

fn activations() -> impl TypedValueParser<Value = Activations> {
    let names = PossibleValuesParser::new(Activations::NAMES.map(|(name, _)| name));
    names.map(|name| {
        Activations::NAMES.iter().find(|(n, _)| *n == name).map_or(Activations::F32, |(_, which)| *which)
    })
}

fn kv_types() -> impl TypedValueParser<Value = KvType> {
    PossibleValuesParser::new(["f32", "f16"])
        .map(|name| if name == "f16" { KvType::F16 } else { KvType::F32 })
}

fn isa(name: &str) -> Result<Isa, String> {
    let available = Isa::available();
    let names: Vec<String> = available.iter().map(Isa::to_string).collect();
    let found = available.iter().find(|isa| isa.to_string() == name);
    found.copied().ok_or_else(|| format!("this machine has {}", names.join(", ")))
}

/// The folder of a model and how its name was understood.
pub fn find(name: &str) -> Result<(PathBuf, String), Failure> {
    let found = Hub::from_env().resolve(name)?;
    Ok((found.dir, found.how))
}

/// The folder of a model, the bundled one unless named, and what to call it: a folder by its last part.
pub fn named(name: Option<&str>) -> Result<(PathBuf, String), Failure> {
    let (dir, name) = match name {
        Some(name) => (find(name)?.0, name),
        None => (amoeba::bundled_model()?, amoeba::BUNDLED),
    };
    let folder = Path::new(name).canonicalize().ok().filter(|_| Path::new(name) == dir);
    let folder = folder.and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
    Ok((dir, folder.unwrap_or_else(|| name.to_owned())))
}

/// The folder of a model; the bundled one unless named.
pub fn find_or_bundled(name: Option<&str>) -> Result<PathBuf, Failure> {
    match name {
        Some(name) => Ok(find(name)?.0),
        None => Ok(amoeba::bundled_model()?),
    }
}

/// Loads a model after checking that it fits; a bar appears when it takes long.
pub fn load(dir: &Path, options: &LoadOptions, force: bool, console: &Console) -> Result<Model, Failure> {
    let notice = if console.quiet() { |_: &str| {} } else { options.notice };
    let checked = Checked::open(dir, &LoadOptions { notice, ..options.clone() })?;
    // A GPU's memory was asked for.
    if !force && !matches!(checked.options().device, Device::Cuda(_)) {
        let (plan, stored) = (checked.plan(), checked.plan().stored(checked.checkpoint())?);
        Need::new(plan, &stored, checked.options())?.check()?;
    }
    let started = Instant::now();
    let mut bar: Option<ProgressBar> = None;
    let model = Model::load_checked(checked, &mut |done, total| {
        if console.animated() && (bar.is_some() || started.elapsed() > Duration::from_millis(400)) {
            let bar = bar.get_or_insert_with(|| bytes_bar("loading", total as u64));
            bar.set_position(done as u64);
        }
    });
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    let model = model?;
    if let Some(whole) = &model.plan().spec.part_of {
        console.note(&format!("[{whole}: the text part; images and sound are not supported]"));
    }
    Ok(model)
}

/// A progress bar over bytes on standard error.
pub fn bytes_bar(name: &str, total: u64) -> ProgressBar {
    let template = "{msg:32!} {bar:24} {bytes:>10} of {total_bytes:>10}  {bytes_per_sec:>12}  {eta:>4}";
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    bar.set_style(style.progress_chars("━━─"));
    bar.set_message(name.to_owned());
    bar
}
