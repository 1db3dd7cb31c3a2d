// SPDX-License-Identifier: Apache-2.0
#include "launch/job/trained_model.h"

#include <sstream>

#include "launch/job/job.h"
#include "launch/job/model_file.h"
#include "launch/job/tokenizer.h"
#include "runtime/checkpoint/checkpoint.h"
#include "runtime/checkpoint/file_io.h"
#include "runtime/comm/communicator.h"
#include "runtime/data/hash.h"
#include "runtime/device/cpu_topology.h"
#include "runtime/files/json_value.h"
#include "runtime/files/path.h"
#include "runtime/graph/kernel_table.h"

namespace lockstep {
namespace {

// The folder itself, or the run that the checkpoint RUN/checkpoints/STEP belongs to.
std::string run_of(const std::string& folder) {
  if (is_there(folder + "/job.yaml")) return folder;
  const std::string checkpoints = parent_folder(absolute_path(folder + "/.")),
                    run = parent_folder(checkpoints);
  return checkpoints.ends_with("/checkpoints") && is_there(run + "/job.yaml") ? run : "";
}

// The numbers in "u8[64, 1, 28, 28]:plain"; none where it is no such text.
std::vector<int64_t> dimensions(const std::string& tensor) {
  std::vector<int64_t> all;
  std::istringstream text(tensor.substr(std::min(tensor.find('['), tensor.size())));
  int64_t number = 0;
  for (char mark = 0; text >> mark && (mark == '[' || mark == ',') && text >> number;) all.push_back(number);
  return all;
}

// Of a run that is older than model.json, whose data are gone: as its plan.json has them.
DatasetShape planned_shape(const std::string& run, const Job& job) {
  const std::string file = run + "/plan.json";
  const auto plan = nlohmann::json::parse(MappedFile(file).text(), nullptr, false);
  DatasetShape shape;
  for (const auto& node : json_get<nlohmann::json::array_t>(plan, "nodes", file)) {
    const auto inputs = json_get<nlohmann::json::array_t>(node, "in", file, "nodes.");
    if (inputs.empty()) continue;
    const auto sizes = dimensions(json_get<std::string>(inputs[0], "tensor", file, "nodes.in."));
    if (json_member(inputs[0], "name") == "images" && sizes.size() == 4)
      shape.channels = sizes[1], shape.height = sizes[2], shape.width = sizes[3];
    if (json_member(node, "op") == "cross_entropy" && sizes.size() == 2) shape.classes = sizes[1];
  }
  if (shape.channels <= 0)
    throw Error(Exit::data, "E_JSON", "no node takes images of a size").at("file", file);
  if (const auto diffusion = diffusion_config(job); diffusion && job.model.unet.num_class_embeds)
    shape.classes = *job.model.unet.num_class_embeds - (diffusion->label_dropout > 0 ? 1 : 0);
  shape.class_names = class_names_of(job.training.dataset, shape.classes);
  return shape;
}

ModelDescription describe_run(const std::string& run, const std::function<void(const std::string&)>& say) {
  const Job job = read_run_job(run);
  std::string by = "the data in " + job.training.path;
  DatasetShape shape;
  try {
    shape = probe_dataset(job.training);
  } catch (const Error& e) {
    if (e.exit() != Exit::no_input || !is_there(run + "/plan.json")) throw;
    shape = planned_shape(run, job);
    by = fmt::format("its plan.json, as there are no data in {}{}", job.training.path,
                     shape.classes > 0 && shape.class_names.empty() ? ": classes are numbers" : "");
  }
  if (say) say(fmt::format("note: {} has no model.json: its job says what the model is, by {}", run, by));
  return describe(job, shape);
}

// Nothing asks for the half of a VAE that makes latents of pictures.
std::shared_ptr<const SafetensorsFile> without_encoder(
    const std::shared_ptr<const SafetensorsFile>& weights) {
  const auto used = [](const std::string& name) {
    return name.starts_with("vae.encoder.") || name.starts_with("vae.quant_conv.") ? "" : name;
  };
  return SafetensorsFile::join(weights->path(), {{weights, "", used}});
}

}  // namespace

std::string model_home(const std::string& weights) {
  const std::string folder = parent_folder(weights);
  return folder == "unet" || folder.ends_with("/unet") ? parent_folder(folder) : folder;
}

TrainedModel open_trained(const std::string& folder, const std::function<void(const std::string&)>& say) {
  if (!is_there(folder))
    throw Error(Exit::no_input, "E_RUN_NONE", "no such run or folder")
        .at("folder", folder)
        .hint("`lockstep fit JOB --output DIR` makes one");
  TrainedModel m;
  m.folder = folder;
  m.run = run_of(folder);
  const auto warn = [&](const std::string& warning) {
    if (say) say("warning: " + warning);
  };
  m.weights = open_model(folder, warn, Verification::in_background);
  const std::string home = model_home(m.weights->path());
  if (const std::string file = home + "/" + kModelFile; is_there(file))
    m.description = read_model_file(file), m.description_hash = sha256_hex(MappedFile(file).bytes());
  else if (!m.run.empty())
    m.description = describe_run(m.run, say);
  else
    m.description = describe_folder(diffusion::expect_files(folder));
  m.tokenizer = open_tokenizer(m.description, home);
  if (m.description.model.text_to_image.vae) m.weights = without_encoder(m.weights);
  return m;
}

std::unique_ptr<InferenceSession> open_session(const TrainedModel& model, InferenceOptions options,
                                               Communicator& comm) {
  const LauncherEnvironment environment = launcher_environment();
  options.kernels.threads = threads_per_rank(0, environment.present ? environment.local_size : 1);
  options.kernels.processor = processor_name();
  options.kernels.cache_file = default_kernel_cache();
  try {
    return std::make_unique<InferenceSession>(model.description, *model.weights, options, comm);
  } catch (Error& e) {
    if (e.exit() == Exit::config) e.add_place("folder", model.folder);  // what its description says cannot be
    throw;
  }
}

std::unique_ptr<Communicator> launched_communicator() {
  const LauncherEnvironment environment = launcher_environment();
  return environment.present && environment.size > 1 ? make_mpi_communicator({}) : make_self_communicator();
}

}  // namespace lockstep
