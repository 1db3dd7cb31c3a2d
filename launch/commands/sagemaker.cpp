// SPDX-License-Identifier: Apache-2.0
// `lockstep sagemaker serve`: what SageMaker asks of a container that answers requests. The model lies unpacked in
// /opt/ml/model; the server listens on 0.0.0.0:8080, and has 30 s from SIGTERM to its end.
#include <fmt/format.h>

#include <charconv>
#include <cstdlib>

#include "launch/commands/command.h"
#include "launch/serve/server.h"
#include "runtime/files/path.h"

namespace lockstep {

extern const Command sagemaker_command;

namespace {

// Of a platform's variable: its text, or what is so where there is none.
std::string variable(const char* name, const std::string& fallback) {
  const char* given = std::getenv(name);
  return given && *given ? given : fallback;
}

int64_t whole_variable(const char* name, int64_t fallback, int64_t min, int64_t max) {
  const std::string text = variable(name, std::to_string(fallback));
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < min || value > max)
    throw Error(Exit::config, "E_SAGEMAKER", fmt::format("{} is {} to {}, not '{}'", name, min, max, text));
  return value;
}

bool holds_model(const std::string& folder) {
  for (const char* name : {"model.json", "model_index.json", "model.safetensors", "job.yaml", "unet"})
    if (is_there(folder + "/" + name)) return true;
  return false;
}

// An archive's files lie at its top, or in one folder, which is how `tar -czf model.tar.gz RUN` packs them.
std::string model_in(const std::string& folder) {
  if (!is_there(folder))
    throw Error(Exit::no_input, "E_SAGEMAKER_MODEL", "there is no model").at("folder", folder);
  if (holds_model(folder)) return folder;
  std::vector<std::string> inside;
  const std::vector<std::string> names = names_in(folder);
  for (const std::string& name : names)
    if (!name.starts_with('.') && is_folder(folder + "/" + name) && holds_model(folder + "/" + name))
      inside.push_back(name);
  if (inside.size() > 1)
    throw Error(Exit::config, "E_SAGEMAKER_MODEL",
                fmt::format("several models are there: {}", fmt::join(inside, ", ")))
        .at("folder", folder);
  if (inside.empty())
    throw Error(Exit::no_input, "E_SAGEMAKER_MODEL",
                names.empty() ? "there is no model: the folder is empty"
                              : fmt::format("there is no model, but {}", fmt::join(names, ", ")))
        .at("folder", folder)
        .hint("`tar -C RUN -czf model.tar.gz .` packs one");
  return folder + "/" + inside.front();
}

void refuse_what_is_not_served() {
  if (const std::string id = variable("HF_MODEL_ID", ""); !id.empty())
    throw Error(Exit::config, "E_SAGEMAKER",
                fmt::format("HF_MODEL_ID={}: models are not downloaded here", id))
        .hint("put its files into model.tar.gz");
  if (variable("SAGEMAKER_MULTI_MODEL", "false") == "true")
    throw Error(Exit::config, "E_SAGEMAKER", "SAGEMAKER_MULTI_MODEL=true: an endpoint here has one model")
        .hint("`lockstep serve --model NAME=FOLDER` serves several");
}

void serve_container() {
  refuse_what_is_not_served();
  const bool batch = variable("SAGEMAKER_BATCH", "false") == "true";
  const std::string folder = model_in(variable("SAGEMAKER_BASE_DIR", "/opt/ml") + "/model");
  serve::ServerOptions o;
  o.models = {{serve::model_name(folder), folder}};
  o.host = "0.0.0.0";
  o.port = static_cast<int>(whole_variable("SAGEMAKER_BIND_TO_PORT", o.port, 0, 65535));
  o.api.body_megabytes = whole_variable("SAGEMAKER_MAX_PAYLOAD_IN_MB", o.api.body_megabytes, 1, 1024);
  // The platform gives up after 60 s, of a batch transform after 600.
  o.limits.seconds =
      static_cast<double>(whole_variable("SAGEMAKER_MODEL_SERVER_TIMEOUT", batch ? 600 : 60, 1, 86400));
  o.api.accept = variable("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT", "application/json");
  o.api.transforms = whole_variable("SAGEMAKER_MAX_CONCURRENT_TRANSFORMS", o.api.transforms, 1, 1 << 20);
  o.api.batch_strategy = variable("SAGEMAKER_BATCH_STRATEGY", o.api.batch_strategy);
  if (o.api.batch_strategy != "SINGLE_RECORD" && o.api.batch_strategy != "MULTI_RECORD")
    throw Error(Exit::config, "E_SAGEMAKER",
                fmt::format("SAGEMAKER_BATCH_STRATEGY is SINGLE_RECORD or MULTI_RECORD, not '{}'",
                            o.api.batch_strategy));
  o.drain_seconds = 25;  // SIGKILL comes after 30
  serve::serve_until_stopped(o);
}

int run_sagemaker(const Arguments& arguments) {
  namespace po = boost::program_options;
  std::string action;
  po::options_description visible("Options"), hidden;
  hidden.add_options()("action", po::value(&action));
  po::positional_options_description positional;
  positional.add("action", 1);
  const auto vm = parse_arguments(
      sagemaker_command, {"serve", "lockstep sagemaker serve", visible, hidden, positional}, arguments);
  if (!vm) return 0;
  if (action.empty()) missing_argument(sagemaker_command, "what to do: serve");
  if (action != "serve")
    throw Error(Exit::usage, "E_OPTION", fmt::format("sagemaker: expected 'serve', found '{}'", action))
        .hint("`lockstep sagemaker --help` says how");
  serve_container();
  return 0;
}

}  // namespace

const Command sagemaker_command{"sagemaker", "answer requests in a container of SageMaker's", run_sagemaker,
                                true};

}  // namespace lockstep
