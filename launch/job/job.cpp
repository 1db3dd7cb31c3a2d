// SPDX-License-Identifier: Apache-2.0
#include "launch/job/job.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "launch/job/checks.h"
#include "launch/job/net_config.h"
#include "launch/job/overrides.h"
#include "launch/job/reader.h"
#include "models/diffusion/folder.h"
#include "runtime/checkpoint/file_io.h"
#include "runtime/files/path.h"

namespace lockstep {

namespace {

struct Descriptor {
  int number;
  ~Descriptor() { ::close(number); }
};

struct JobText {
  std::string text;
  bool is_file = true;  // else a pipe, a terminal: read once, and it has no folder of its own
};

Error cannot_read_job(const std::string& path, int error) {
  return Error(error == EACCES ? Exit::no_permission : Exit::no_input, "E_JOB_MISSING",
               fmt::format("cannot open the job file: {}", std::strerror(error)))
      .at("job", path)
      .hint("configs/ has examples");
}

// Up to the end, or one byte more than allowed, so that a longer file is seen to be longer. A pipe is waited for as long
// as somebody has it open for writing; one that nobody opens is given a moment.
std::string read_all(int descriptor, const std::string& path) {
  constexpr int kMomentMs = 2000;
  std::string text(job::kMaxJobBytes + 1, '\0');
  size_t size = 0;
  bool has_begun = false;  // somebody has written, or it is no pipe
  while (size < text.size()) {
    const ssize_t n = ::read(descriptor, text.data() + size, text.size() - size);
    if (n > 0) {
      size += static_cast<size_t>(n);
    } else if (n == 0) {
      if (size > 0 || has_begun) break;
      pollfd poll{descriptor, POLLIN, 0};
      has_begun = ::poll(&poll, 1, kMomentMs) > 0;
      if (!has_begun)
        throw Error(Exit::no_input, "E_JOB_MISSING", "nobody writes to this pipe").at("job", path);
    } else if (errno == EAGAIN) {
      pollfd poll{descriptor, POLLIN, 0};
      ::poll(&poll, 1, -1);
    } else if (errno != EINTR) {
      throw Error(Exit::io, "E_JOB_READ", "cannot read the job file").at("job", path);
    }
  }
  text.resize(size);
  return text;
}

JobText read_text(const std::string& path) {
  // O_NONBLOCK: opening a pipe waits for nobody.
  const int descriptor =
      path == "-" ? ::dup(STDIN_FILENO) : ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (descriptor < 0) throw cannot_read_job(path, errno);
  const Descriptor closed{descriptor};
  struct stat status {};
  if (::fstat(descriptor, &status) != 0) throw cannot_read_job(path, errno);
  if (S_ISDIR(status.st_mode))
    throw Error(Exit::no_input, "E_JOB_MISSING", "is a folder, not a job file").at("job", path);
  return {read_all(descriptor, path), S_ISREG(status.st_mode) && path != "-"};
}

// Allowed in two places, since the article writes it under hyperparameters.
void merge_backend(job::Node& root) {
  job::Node alias = job::take_path(root, job::kBackendAlias);
  if (!alias.place.source) return;
  const job::Node* backend = root.find(job::kBackend);
  if (!backend) {
    alias.key = job::kBackend;
    root.children.push_back(std::move(alias));
    return;
  }
  const auto resolved = [](const job::Node& node) { return node.text == "gloo" ? "mpi" : node.text; };
  if (resolved(alias) != resolved(*backend) || alias.kind != backend->kind)
    throw job::job_error(alias.key_place, job::kBackendAlias, "E_JOB_CONFLICT",
                         fmt::format("{}, but backend is {} at {}", job::shown(alias.text),
                                     job::shown(backend->text), backend->key_place.text()));
}

// What the folder that training starts from says, where the job does not.
void fill_text_to_image(ModelSpec& model, const job::Reader& reader) {
  TextToImageConfig& config = model.text_to_image;
  const std::string &from = model.init_from, unet = from + "/unet/config.json",
                    text_encoder = from + "/text_encoder/config.json", vae = from + "/vae/config.json",
                    tokenizer = from + "/tokenizer";
  if (!from.empty()) {
    if (!reader.given("model.unet") && is_there(unet)) config.unet = read_unet_condition_config(unet);
    if (!reader.given("model.text_encoder") && is_there(text_encoder))
      config.text_encoder = read_clip_text_config(text_encoder);
    if (!reader.given("model.vae") && is_there(vae)) config.vae = read_vae_config(vae);
    if (config.tokenizer.empty() && is_there(tokenizer)) config.tokenizer = absolute_path(tokenizer);
  }
  config.text_length = config.text_encoder.max_position_embeddings;
}

void fill_defaults(Job& job, const job::Reader& reader) {
  if (job.job_name.empty()) {
    const std::string stem = std::filesystem::path(job.file).stem().string();
    for (const char c : job.piped ? std::string("job") : stem)
      job.job_name += std::isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '_' ? c : '-';
    if (job.job_name[0] == '.' || job.job_name[0] == '-') job.job_name = "job" + job.job_name;
    job.job_name.resize(std::min<size_t>(job.job_name.size(), 128));
  }
  if (job.backend == "gloo") job.backend = "mpi";
  for (std::string& host : job.hosts)
    if (host.find(':') == std::string::npos) host += ":1";
  job.output_dir = absolute_path(job.output_dir);
  if (job.model.name == "unet2d" && !reader.given("model.config") && !job.model.init_from.empty())
    if (const auto files = diffusion::find_files(job.model.init_from); !files.unet_config.empty())
      job.model.unet = read_unet_config(files.unet_config);
  if (job.model.reads_text()) fill_text_to_image(job.model, reader);
  if (job.model.draws_latents()) {
    // Whatever is trained, the VAE is not.
    if (job.hyperparameters.trained.empty()) job.hyperparameters.trained = {"text_encoder", "unet"};
    // Latents are no pixels in [-1, 1].
    if (!reader.given("sampling.clip_sample")) job.scheduler.clip_sample = false;
  }
  job.model.where = reader.place_of(job.model.layers.empty() ? "model.name" : "model.layers").text();
  if (job.hyperparameters.optimizer.name == "adamw" &&
      !reader.given("hyperparameters.optimizer.weight_decay"))
    job.hyperparameters.optimizer.weight_decay = 0.01;

  if (!job.test && job::has_test_half(job.training.dataset)) {
    job.test = job.training;
    job.test->limit = 0;
    job.test->augment = {};
    job.test->captions.dropout = 0;
  }
  try {
    job.hyperparameters.diffusion = diffusion_config(job);
  } catch (const Error& e) {
    throw job::job_error(reader.place_of("objective"), "objective", e.id(), e.message()).hint(e.hint());
  }
  if (job.hyperparameters.diffusion) {
    // Pixels in [-1, 1].
    for (DatasetConfig* data :
         {&job.training, job.validation ? &*job.validation : nullptr, job.test ? &*job.test : nullptr})
      if (data && data->mean.empty()) data->mean = data->std = {0.5f};
  }
  job.training.split = "training";
  job.training.seed = job.hyperparameters.seed;
  if (job.validation) job.validation->split = "test";
  if (job.test) job.test->split = "test";
}

}  // namespace

std::optional<DiffusionConfig> diffusion_config(const Job& job) {
  if (job.objective.name != "diffusion") return std::nullopt;
  DiffusionConfig d = diffusion::training_objective(job.scheduler.schedule);
  d.snr_gamma = job.objective.snr_gamma;
  d.label_dropout = job.objective.label_dropout;
  return d;
}

namespace {

Job read_job_text(const JobText& text, const std::string& path, const std::vector<std::string>& overrides) {
  job::Node root = job::parse_yaml(text.text, path, true);
  if (root.kind != job::Node::Kind::map)
    throw job::job_error(root.place, "", root.kind == job::Node::Kind::null ? "E_JOB_EMPTY" : "E_JOB_TYPE",
                         fmt::format("a job is a map of keys, found {}", root.kind_name()))
        .hint("for example job_name: mnist-cnn");
  job::expand_short_forms(root);
  job::apply_overrides(root, overrides);
  merge_backend(root);

  Job job;
  job.file = path;
  job.piped = !text.is_file;
  job::Reader reader(job.piped ? absolute_path(".") : parent_folder(absolute_path(path)));
  reader.read(job::job_keys(), root, &job, "");
  check_exclusive(reader);
  fill_defaults(job, reader);
  check_job(job, reader);
  for (const auto& [key, place] : reader.places()) job.where[key] = place.text();
  return job;
}

}  // namespace

Job read_job(const std::string& path, const std::vector<std::string>& overrides) {
  return read_job_text(read_text(path), path, overrides);
}

Job read_resolved_job(const std::string& text, const std::string& path) {
  return read_job_text({text, false}, path, {});
}

Job read_run_job(const std::string& run_folder) {
  const std::string file = run_folder + "/job.yaml";
  if (!is_there(file))
    throw Error(Exit::no_input, "E_RUN_NONE", "not a run folder: it has no job.yaml")
        .at("folder", run_folder)
        .hint("`lockstep fit JOB --output DIR` makes one");
  return read_job(file, {});
}

}  // namespace lockstep
