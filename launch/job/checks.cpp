// SPDX-License-Identifier: Apache-2.0
#include "launch/job/checks.h"

#include <algorithm>
#include <bit>

#include "launch/job/scalar.h"
#include "models/clip_text.h"
#include "models/model.h"
#include "models/unet2d.h"
#include "models/unet2d_condition.h"

namespace lockstep::job {
namespace {

Error conflict(const Reader& reader, const std::string& path, std::string message) {
  return job_error(reader.place_of(path), path, "E_JOB_CONFLICT", std::move(message));
}

void check_hosts(const Job& job, const Reader& reader) {
  if (job.hosts.empty()) return;
  int64_t slots = 0;
  for (size_t i = 0; i < job.hosts.size(); ++i) {
    const std::string& host = job.hosts[i];
    // What comes in is whole; fill_defaults() adds ":1" where there is no colon.
    if (std::count(host.begin(), host.end(), ':') > 1 || host.find('[') != std::string::npos)
      throw conflict(
          reader, "hosts",
          fmt::format("hosts[{}]: {} is an IPv6 address, which mpirun's --host takes apart", i, shown(host)))
          .hint("write the machine's name, or name a hostfile");
    const size_t colon = host.rfind(':');
    int64_t count = 0;
    const bool bad_count =
        !parse_integer(host.substr(colon + 1), count).empty() || count < 1 || count > 65536;
    if (colon == 0 || colon == std::string::npos || bad_count ||
        host.find_first_of(" ,\"'") != std::string::npos || host[0] == '-')
      throw conflict(reader, "hosts",
                     fmt::format("hosts[{}]: {} is no host or host:slots (1..65536)", i, shown(host)));
    slots += count;
  }
  if (slots < job.instance_count)
    throw conflict(reader, "hosts", fmt::format("{} slots for instance_count {}", slots, job.instance_count))
        .hint("host:slots says how many ranks a host takes; a host alone takes one");
}

void check_optimizer(const TrainingConfig& training, const Reader& reader) {
  const std::string path = "hyperparameters.optimizer.nesterov";
  const OptimizerConfig& optimizer = training.optimizer;
  if (optimizer.nesterov && optimizer.momentum == 0)
    throw conflict(reader, path, "nesterov needs momentum above 0");
  if (optimizer.nesterov && optimizer.dampening != 0)
    throw conflict(reader, path, "nesterov needs dampening 0");
  if (optimizer.dampening != 0 && optimizer.momentum == 0)
    throw conflict(reader, "hyperparameters.optimizer.dampening", "dampening needs momentum above 0");
  if (training.lr_schedule.name == "step" && training.lr_schedule.step_size == 0)
    throw job_error(reader.place_of("hyperparameters.lr_schedule.name"),
                    "hyperparameters.lr_schedule.step_size", "E_JOB_REQUIRED",
                    "missing key: the schedule step needs it");
  if (training.steps && training.lr_schedule.warmup_steps > *training.steps)
    throw conflict(
        reader, "hyperparameters.lr_schedule.warmup_steps",
        fmt::format("{} warm-up steps in a job of {}", training.lr_schedule.warmup_steps, *training.steps));
}

// A network's own check, of the map at that path.
template <class Config>
void check_network(const Config& config, const std::string& path, const Reader& reader) {
  try {
    check(config);
  } catch (const Error& e) {
    std::string key = path;
    for (const auto& [name, value] : e.places())
      if (name == "key") key = path + "." + value;
    throw job_error(reader.place_of(key), key, e.id(), e.message());
  }
}

void check_unet2d(const Job& job, const Reader& reader) {
  const UNet2DConfig& config = job.model.unet;
  check_network(config, "model.config", reader);
  if (job.objective.label_dropout > 0 && !config.num_class_embeds)
    throw conflict(reader, "objective.label_dropout", "the UNet has no table of classes (num_class_embeds)");
  if (job.sampling.guidance != 1 && job.objective.label_dropout == 0)
    throw conflict(reader, "sampling.guidance",
                   "guidance needs a model trained with objective.label_dropout");
}

void check_vae(const Job& job, const Reader& reader) {
  const VaeConfig& vae = *job.model.text_to_image.vae;
  const auto* kl = std::get_if<AutoencoderKlConfig>(&vae.kind);
  if (!kl)
    throw conflict(reader, "model.init_from",
                   "its VAE is an AutoencoderTiny, which makes no distribution of an image: there is nothing "
                   "to train on")
        .hint("a folder with an AutoencoderKL");
  check_network(*kl, "model.vae", reader);
  if (kl->latent_channels != job.model.text_to_image.unet.in_channels)
    throw conflict(reader, "model.unet.in_channels",
                   fmt::format("{}, but model.vae.latent_channels is {}",
                               job.model.text_to_image.unet.in_channels, kl->latent_channels));
}

// What is frozen keeps its weights, which come from somewhere.
void check_trained(const Job& job, const Reader& reader) {
  const auto& trained = job.hyperparameters.trained;
  for (size_t i = 0; i < trained.size(); ++i)
    if (std::count(trained.begin(), trained.end(), trained[i]) > 1)
      throw conflict(reader, "trained", fmt::format("{} stands there twice", trained[i]));
  const bool some_frozen = job.model.draws_latents() || (!trained.empty() && trained.size() < 2);
  if (some_frozen && job.model.init_from.empty())
    throw job_error(reader.place_of("trained"), "model.init_from", "E_JOB_REQUIRED",
                    "missing key: what is frozen keeps the weights that it starts from");
}

void check_text_to_image(const Job& job, const Reader& reader) {
  const auto& [unet, text_encoder, tokenizer, length, vae] = job.model.text_to_image;
  check_network(unet, "model.unet", reader);
  check_network(text_encoder, "model.text_encoder", reader);
  if (vae) check_vae(job, reader);
  check_trained(job, reader);
  if (tokenizer.empty())
    throw job_error(reader.place_of("model.tokenizer"), "model.tokenizer", "E_JOB_REQUIRED",
                    "missing key: text_to_image needs it")
        .hint("model.tokenizer: data/clip_small");
  if (unet.cross_attention_dim != text_encoder.hidden_size)
    throw conflict(reader, "model.unet.cross_attention_dim",
                   fmt::format("{}, but model.text_encoder.hidden_size is {}", unet.cross_attention_dim,
                               text_encoder.hidden_size));
  if (job.objective.label_dropout > 0)
    throw conflict(reader, "objective.label_dropout", "text_to_image reads captions, not classes")
        .hint("inputs.training.captions.dropout hides them");
  if (job.sampling.guidance != 1 && job.training.captions.dropout == 0)
    throw conflict(reader, "sampling.guidance",
                   "guidance needs a model trained with inputs.training.captions.dropout");
}

void check_diffusion(const Job& job, const Reader& reader) {
  const bool draws = job.model.draws(), diffusion = job.objective.name == "diffusion";
  if (draws != diffusion)
    throw conflict(reader, draws ? "model.name" : "objective.name",
                   draws ? job.model.name + " is a diffusion model"
                         : "diffusion wants the model unet2d or text_to_image")
        .hint(draws ? "objective: diffusion" : "model: {name: unet2d, config: {...}}");
  if (!diffusion) return;
  if (job.checkpoint.best_by == "validation_accuracy")
    throw conflict(reader, "checkpoint.best_by", "diffusion has no accuracy").hint("validation_loss");
  for (const float x : {job.training.mean[0], job.training.std[0]})
    if (job.training.mean.size() != 1 || job.training.std.size() != 1 || x != 0.5f)
      throw conflict(reader, "inputs.training.normalize", "diffusion trains on pixels in [-1, 1]")
          .hint("leave normalize out, or give mean 0.5 and std 0.5");
  if (job.model.reads_text())
    check_text_to_image(job, reader);
  else
    check_unet2d(job, reader);
  // What the sampler cannot do is said now and not after the training.
  try {
    diffusion::make_sampler(job.sampling.sampler, job.scheduler, job.sampling.steps, job.sampling.eta);
  } catch (const Error& e) {
    throw job_error(reader.place_of("sampling"), "sampling", e.id(), e.message());
  }
}

// The model normalises its images in one way, whichever set they come from.
void check_normalize(const Job& job, const Reader& reader) {
  const std::pair<const char*, const std::optional<DatasetConfig>*> sets[] = {
      {"inputs.validation", &job.validation}, {"inputs.test", &job.test}};
  for (const auto& [key, set] : sets)
    if (*set && !(*set)->mean.empty() &&
        ((*set)->mean != job.training.mean || (*set)->std != job.training.std))
      throw conflict(reader, fmt::format("{}.normalize", key), "another than inputs.training's")
          .hint("leave it out: a model normalises all its images as it was trained to");
}

bool has_captions(const DatasetConfig& set) {
  return set.dataset == "captioned_digits" || !set.captions.column.empty() || !set.captions.pattern.empty();
}

void check_captions(const Job& job, const Reader& reader) {
  const std::pair<const char*, const DatasetConfig*> sets[] = {
      {"inputs.training", &job.training},
      {"inputs.validation", job.validation ? &*job.validation : nullptr},
      {"inputs.test", job.test ? &*job.test : nullptr}};
  for (const auto& [key, set] : sets)
    if (set && job.model.reads_text() && !has_captions(*set))
      throw job_error(reader.place_of(key), fmt::format("{}.captions", key), "E_JOB_REQUIRED",
                      "missing key: text_to_image reads captions")
          .hint("captions.column names them, captions.template makes them of the classes' names");
  for (const auto& [key, set] : sets)
    if (set && !set->captions.pattern.empty() && set->captions.pattern.find("{}") == std::string::npos)
      throw conflict(reader, fmt::format("{}.captions.template", key),
                     "expected {} where the class's name goes")
          .hint("for example \"a photo of a {}\"");
  if (job.training.captions.dropout > 0 && !has_captions(job.training))
    throw conflict(reader, "inputs.training.captions.dropout",
                   "there are no captions: give captions.column or .template");
}

void check_cache(const Job& job, const Reader& reader) {
  const DatasetConfig& set = job.training;
  const std::string key = "inputs.training.cache";
  if (set.cache.empty()) return;
  if (!job.model.draws_latents())
    throw conflict(reader, key, "there is no VAE that makes latents of images")
        .hint("model.init_from: a StableDiffusionPipeline's folder, or model.vae");
  if (set.augment.any())
    throw conflict(reader, key, "augment makes other images in each step")
        .hint("leave augment out, or the cache");
  if (set.dataset == "captioned_digits")
    throw conflict(reader, key, "captioned_digits draws other images in each epoch")
        .hint("`lockstep data make captioned_digits DIR` writes them as a folder");
}

void check_loss(const Job& job, const Reader& reader) {
  if (job.hyperparameters.loss != "nll") return;
  const std::vector<LayerSpec> layers = layers_of(job.model);
  const bool log_probabilities = !layers.empty() && layers.back().type == "log_softmax";
  if (!log_probabilities)
    throw conflict(reader, "hyperparameters.loss",
                   "nll takes log-probabilities, but the model doesn't end in log_softmax")
        .hint("cross_entropy takes logits");
}

void check_stop(const Job& job, const Reader& reader) {
  const StopConfig& stop = job.stop;
  if (stop.metric.empty()) return;
  const bool accuracy = stop.metric.ends_with("_accuracy");
  if (!stop.at && !stop.patience)
    throw job_error(reader.place_of("stop.metric"), "stop.at", "E_JOB_REQUIRED",
                    "missing key: stop.at or stop.patience");
  if (accuracy && job.objective.name == "diffusion")
    throw conflict(reader, "stop.metric", "diffusion has no accuracy")
        .hint(stop.metric.starts_with("test") ? "test_loss" : "validation_loss");
  if (stop.metric.starts_with("validation_") && !job.validation && job.validation_fraction == 0)
    throw conflict(reader, "stop.metric", fmt::format("{} needs validation samples", stop.metric))
        .hint("give validation_fraction or inputs.validation");
  if (stop.metric.starts_with("test_") && !job.test)
    throw conflict(reader, "stop.metric", fmt::format("{} needs test samples", stop.metric))
        .hint("give inputs.test");
  if (accuracy && stop.at && *stop.at > 1)
    throw conflict(reader, "stop.at",
                   fmt::format("an accuracy is a share, 0 to 1, and never {}", number_text(*stop.at)))
        .hint("0.98 is 98 %");
  if (accuracy && stop.min_delta >= 1)
    throw conflict(reader, "stop.min_delta", "no accuracy is better than another by 1 or more")
        .hint("0.01 is 1 %");
}

// What `auto` becomes is seen where the job runs.
void check_gradient_precision(const Job& job, const Reader& reader) {
  if (job.gradient_precision == "fp32") return;
  const char* key = "gradient_precision";
  const bool on_gpus = job.device == "cuda" || job.device == "auto";
  if (job.backend == "mpi" || !on_gpus)
    throw conflict(reader, key,
                   fmt::format("only nccl sums gradients in bf16, but {}",
                               on_gpus ? "backend is mpi" : "device is " + job.device))
        .hint("gradient_precision: fp32, or backend: nccl on device: cuda");
  if (job.hyperparameters.shards)
    throw conflict(reader, key, "not with shards: how often a sum is rounded depends on the number of ranks")
        .hint("gradient_precision: fp32");
}

void check_shards(const Job& job, const Reader& reader) {
  const auto& h = job.hyperparameters;
  if (!h.shards) return;
  const int64_t shards = *h.shards;
  const char* key = "hyperparameters.shards";
  if (!std::has_single_bit(static_cast<uint64_t>(shards)))
    throw conflict(reader, key, fmt::format("{} is no power of two", shards));
  if (h.gradient_accumulation > 1)
    throw conflict(reader, key, fmt::format("not with gradient_accumulation {}", h.gradient_accumulation))
        .hint("a rank computes its shards one after the other already");
  if (shards % job.instance_count != 0)
    throw conflict(reader, key,
                   fmt::format("{} ranks cannot share {} shards evenly", job.instance_count, shards))
        .hint("instance_count must divide it");
  if (shards > h.global_batch_size)
    throw conflict(reader, key,
                   fmt::format("more shards than global_batch_size {} has samples", h.global_batch_size));
  if (job.threads_per_rank == 0)
    throw job_error(
        reader.place_of(key), "threads_per_rank", "E_JOB_REQUIRED",
        "missing key: shards needs it, as some kernels give other last bits with other thread counts");
}

}  // namespace

void check_exclusive(const Reader& reader) {
  for (const Exclusive& pair : exclusive_keys()) {
    const bool first = reader.given(pair.first), second = reader.given(pair.second);
    if (first && second)
      throw job_error(
          reader.place_of(pair.second), pair.second, "E_JOB_EXCLUSIVE",
          fmt::format("not together with {}, given at {}", pair.first, reader.place_of(pair.first).text()))
          .hint("give one of the two");
    if (pair.one_needed && !first && !second)
      throw job_error(reader.place_of(pair.first), pair.first, "E_JOB_REQUIRED",
                      fmt::format("missing key: {} or {}", pair.first, pair.second));
  }
}

void check_job(const Job& job, const Reader& reader) {
  check_hosts(job, reader);
  check_optimizer(job.hyperparameters, reader);
  check_diffusion(job, reader);
  check_loss(job, reader);
  check_normalize(job, reader);
  check_captions(job, reader);
  check_cache(job, reader);
  if (job.hyperparameters.recompute == "auto" && job.hyperparameters.memory_budget_mb == 0)
    throw job_error(reader.place_of("hyperparameters.recompute"), "hyperparameters.memory_budget_mb",
                    "E_JOB_REQUIRED", "missing key: recompute auto needs it");
  if (job.hyperparameters.gradient_accumulation > job.hyperparameters.global_batch_size)
    throw conflict(reader, "hyperparameters.gradient_accumulation",
                   fmt::format("more parts than global_batch_size {} has samples",
                               job.hyperparameters.global_batch_size));
  check_shards(job, reader);
  if (!job.checkpoint.best_by.empty() && !job.validation && job.validation_fraction == 0)
    throw conflict(reader, "checkpoint.best_by", "needs validation samples")
        .hint("give validation_fraction or inputs.validation");
  check_stop(job, reader);
  if (job.backend == "nccl" && job.device != "cuda" && job.device != "auto")
    throw conflict(reader, "backend", fmt::format("nccl joins GPUs, but device is {}", job.device))
        .hint("backend: mpi, or device: cuda");
  check_gradient_precision(job, reader);
}

}  // namespace lockstep::job
