// SPDX-License-Identifier: Apache-2.0
#include "models/diffusion/scheduler_config.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <nlohmann/json.hpp>

#include "kernels/core/error.h"
#include "runtime/checkpoint/checkpoint.h"
#include "runtime/checkpoint/file_io.h"
#include "runtime/files/json_text.h"

namespace lockstep::diffusion {
namespace {

using nlohmann::json;
using Samplers = std::vector<std::string>;

constexpr std::string_view kDiffusersVersion = "0.42.1";  // whose classes these files are for

Samplers all_samplers() {
  Samplers all;
  for (const SamplerName& s : sampler_names()) all.push_back(s.name);
  return all;
}

Error bad_value(const std::string& key, const json& value, std::string_view expected) {
  return Error(Exit::config, "E_SCHEDULER_CONFIG",
               fmt::format("{}={}: expected {}", key, json_text(value), expected));
}

template <class T>
void assign(const std::string& key, const json& value, T& field) {
  if constexpr (std::is_same_v<T, bool>) {
    if (!value.is_boolean()) throw bad_value(key, value, "true or false");
  } else if constexpr (std::is_integral_v<T>) {
    if (!value.is_number_integer()) throw bad_value(key, value, "a whole number");
  } else if constexpr (std::is_floating_point_v<T>) {
    if (!value.is_number()) throw bad_value(key, value, "a number");
  } else {
    if (!value.is_string()) throw bad_value(key, value, "a word");
  }
  field = value.get<T>();
}

// A key of SchedulerConfig and the samplers whose diffusers class has it.
struct Key {
  std::string name;
  Samplers samplers;
  std::function<void(const json&, SchedulerConfig&)> read;
  std::function<json(const SchedulerConfig&)> write;  // discarded: leave it out
};

template <class T>
Key key(const std::string& name, Samplers samplers, T SchedulerConfig::*field) {
  return {name, std::move(samplers), [=](const json& v, SchedulerConfig& c) { assign(name, v, c.*field); },
          [=](const SchedulerConfig& c) { return json(c.*field); }};
}
// A key whose default is each class's own: left out unless it is set.
Key key(const std::string& name, Samplers samplers, std::optional<bool> SchedulerConfig::*field) {
  return {name, std::move(samplers),
          [=](const json& v, SchedulerConfig& c) { assign(name, v, (c.*field).emplace()); },
          [=](const SchedulerConfig& c) {
            return c.*field ? json(*(c.*field)) : json(json::value_t::discarded);
          }};
}
template <class T>
Key key(const std::string& name, T ScheduleConfig::*field) {
  return {name, all_samplers(),
          [=](const json& v, SchedulerConfig& c) { assign(name, v, c.schedule.*field); },
          [=](const SchedulerConfig& c) { return json(c.schedule.*field); }};
}

Key trained_betas() {
  const auto read = [](const json& value, SchedulerConfig& c) {
    c.schedule.trained_betas.clear();
    if (value.is_null()) return;
    if (!value.is_array() || value.empty() ||
        !std::all_of(value.begin(), value.end(), [](const json& b) { return b.is_number(); }))
      throw bad_value("trained_betas", value, "null or a list of numbers");
    c.schedule.trained_betas = value.get<std::vector<float>>();
  };
  const auto write = [](const SchedulerConfig& c) {
    if (!c.schedule.trained_betas.empty()) return json(c.schedule.trained_betas);
    return c.schedule.beta_schedule == "sigmoid" ? json(make_betas(c.schedule)) : json(nullptr);
  };
  return {"trained_betas", all_samplers(), read, write};
}

// PNDMScheduler lacks it; pndm refuses it.
Key rescale_betas_zero_snr() {
  Key k = key("rescale_betas_zero_snr", &ScheduleConfig::rescale_betas_zero_snr);
  std::erase(k.samplers, "pndm");
  return k;
}

Key timestep_spacing() {
  Key k = key("timestep_spacing", all_samplers(), &SchedulerConfig::timestep_spacing);
  k.write = [](const SchedulerConfig& c) {
    return c.timestep_spacing.empty() ? json(json::value_t::discarded) : json(c.timestep_spacing);
  };
  return k;
}

// dpm_solver has this key too, as null or learned.
Key variance_type() {
  Key k = key("variance_type", {"ddpm"}, &SchedulerConfig::variance_type);
  k.read = [read = k.read](const json& value, SchedulerConfig& c) {
    if (value.is_null()) return;
    read(value, c);
    if (c.variance_type.starts_with("learned"))
      c.refused.push_back({all_samplers(), "variance_type=" + c.variance_type});
  };
  return k;
}

// Names of other schedulers' solvers mean midpoint to DPMSolverMultistepScheduler.
Key solver_type() {
  Key k = key("solver_type", {"dpm_solver"}, &SchedulerConfig::solver_type);
  k.read = [read = k.read](const json& value, SchedulerConfig& c) {
    read(value, c);
    if (c.solver_type == "logrho" || c.solver_type == "bh1" || c.solver_type == "bh2")
      c.solver_type = "midpoint";
  };
  return k;
}

// Python writes minus infinity, the default, as a word that JSON lacks; parse_scheduler_config has quoted it.
Key lambda_min_clipped() {
  Key k = key("lambda_min_clipped", {"dpm_solver"}, &SchedulerConfig::lambda_min_clipped);
  k.read = [read = k.read](const json& value, SchedulerConfig& c) {
    if (value == "-Infinity")
      c.lambda_min_clipped = -std::numeric_limits<double>::infinity();
    else
      read(value, c);
  };
  k.write = [](const SchedulerConfig& c) {
    return std::isfinite(c.lambda_min_clipped) ? json(c.lambda_min_clipped) : json(json::value_t::discarded);
  };
  return k;
}

const std::vector<Key>& keys() {
  using C = SchedulerConfig;
  static const std::vector<Key> kKeys = {
      key("num_train_timesteps", &ScheduleConfig::num_train_timesteps),
      key("beta_start", &ScheduleConfig::beta_start),
      key("beta_end", &ScheduleConfig::beta_end),
      key("beta_schedule", &ScheduleConfig::beta_schedule),
      trained_betas(),
      rescale_betas_zero_snr(),
      key("prediction_type", &ScheduleConfig::prediction_type),
      timestep_spacing(),
      key("steps_offset", all_samplers(), &C::steps_offset),
      variance_type(),
      key("clip_sample", {"ddpm", "ddim"}, &C::clip_sample),
      key("clip_sample_range", {"ddpm", "ddim"}, &C::clip_sample_range),
      key("thresholding", {"ddpm", "ddim", "dpm_solver"}, &C::thresholding),
      key("dynamic_thresholding_ratio", {"ddpm", "ddim", "dpm_solver"}, &C::dynamic_thresholding_ratio),
      key("sample_max_value", {"ddpm", "ddim", "dpm_solver"}, &C::sample_max_value),
      key("set_alpha_to_one", {"ddim", "pndm"}, &C::set_alpha_to_one),
      key("skip_prk_steps", {"pndm"}, &C::skip_prk_steps),
      key("solver_order", {"dpm_solver"}, &C::solver_order),
      solver_type(),
      key("lower_order_final", {"dpm_solver"}, &C::lower_order_final),
      key("euler_at_final", {"dpm_solver"}, &C::euler_at_final),
      lambda_min_clipped(),
      key("use_karras_sigmas", {"dpm_solver", "euler"}, &C::use_karras_sigmas),
      key("final_sigmas_type", {"dpm_solver", "euler"}, &C::final_sigmas_type),
  };
  return kKeys;
}

// Options that we implement at these values only.
struct FixedKey {
  std::string name;
  Samplers samplers;
  std::vector<json> implemented;
};
const std::vector<FixedKey>& fixed_keys() {
  static const std::vector<FixedKey> kFixed = {
      {"predict_epsilon", all_samplers(), {true}},  // prediction_type in older files
      {"algorithm_type", {"dpm_solver"}, {"dpmsolver++", "deis"}},
      {"use_lu_lambdas", {"dpm_solver"}, {false}},
      {"use_flow_sigmas", {"dpm_solver"}, {false}},
      {"use_dynamic_shifting", {"dpm_solver"}, {false}},
      {"use_exponential_sigmas", {"dpm_solver", "euler"}, {false}},
      {"use_beta_sigmas", {"dpm_solver", "euler"}, {false}},
      {"sigma_min", {"dpm_solver", "euler"}, {nullptr}},
      {"sigma_max", {"dpm_solver", "euler"}, {nullptr}},
      {"interpolation_type", {"euler"}, {"linear"}},
      {"timestep_type", {"euler"}, {"discrete"}},
  };
  return kFixed;
}

// Keys of compatible schedulers that say how *they* step, of options refused above, or of no effect.
constexpr std::string_view kOtherKeys[] = {"disable_corrector", "flow_shift",     "noise_sampler_seed",
                                           "predict_x0",        "shift_terminal", "solver_p",
                                           "tensor_format",     "time_shift_type"};
// Schedulers whose models ours can sample: diffusers' KarrasDiffusionSchedulers without EDM's, whose inputs
// are scaled in another way.
constexpr std::string_view kOtherClasses[] = {
    "LMSDiscreteScheduler",    "HeunDiscreteScheduler",           "DPMSolverSinglestepScheduler",
    "KDPM2DiscreteScheduler",  "KDPM2AncestralDiscreteScheduler", "DEISMultistepScheduler",
    "UniPCMultistepScheduler", "DPMSolverSDEScheduler",
};

template <class Range, class Name>
auto find_name(const Range& range, const Name& name) {
  return std::find_if(std::begin(range), std::end(range),
                      [&](const auto& entry) { return entry.name == name; });
}
template <class Range>
bool contains(const Range& range, std::string_view word) {
  return std::find(std::begin(range), std::end(range), word) != std::end(range);
}

// Puts quotes around -Infinity, which Python's json writes bare.
std::string quote_infinity(std::string_view text) {
  constexpr std::string_view kWord = "-Infinity";
  std::string quoted;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    if (!in_string && text.substr(i).starts_with(kWord)) {
      quoted += fmt::format("\"{}\"", kWord);
      i += kWord.size() - 1;
      continue;
    }
    if (text[i] == '"') in_string = !in_string;
    quoted += text[i];
    if (in_string && text[i] == '\\' && i + 1 < text.size()) quoted += text[++i];
  }
  return quoted;
}

void read_key(const std::string& name, const json& value, SchedulerConfig& config) {
  if (const auto k = find_name(keys(), name); k != keys().end()) return k->read(value, config);
  if (const auto k = find_name(fixed_keys(), name); k != fixed_keys().end()) {
    if (std::find(k->implemented.begin(), k->implemented.end(), value) == k->implemented.end())
      config.refused.push_back({k->samplers, name + "=" + json_text(value)});
    return;
  }
  if (name.starts_with('_') || contains(kOtherKeys, name)) return;
  throw Error(Exit::config, "E_SCHEDULER_CONFIG",
              fmt::format("unknown key {}, which may change the samples", name))
      .hint("remove it from the file if it does not");
}

}  // namespace

SchedulerFile parse_scheduler_config(std::string_view text, const std::string& path) {
  const auto damaged = [&](std::string message) {
    return Error(Exit::data, "E_SCHEDULER_CONFIG", std::move(message)).at("file", path);
  };
  json object;
  try {
    object = json::parse(quote_infinity(text));
  } catch (const json::exception& error) {  // a number out of range, too
    throw damaged(fmt::format("not valid JSON: {}", error.what()));
  }
  if (!object.is_object()) throw damaged("expected a JSON object");
  const auto class_name = object.find("_class_name");
  if (class_name == object.end() || !class_name->is_string())
    throw damaged("expected a word under _class_name");

  SchedulerFile file{.diffusers_class = *class_name};
  const auto ours = std::find_if(sampler_names().begin(), sampler_names().end(), [&](const SamplerName& s) {
    return s.diffusers_class == file.diffusers_class;
  });
  if (ours != sampler_names().end()) file.sampler = ours->name;
  try {
    if (file.sampler.empty() && !contains(kOtherClasses, file.diffusers_class))
      throw bad_value("_class_name", *class_name, "a diffusers scheduler with betas, such as DDPMScheduler");
    for (const auto& [name, value] : object.items()) read_key(name, value, file.config);
  } catch (Error& error) {
    error.add_place("file", path);
    throw;
  }
  return file;
}

SchedulerFile read_scheduler_config(const std::string& path) {
  return parse_scheduler_config(MappedFile(path).text(), path);
}

std::string scheduler_config_text(const std::string& sampler, const SchedulerConfig& config) {
  const auto name = find_name(sampler_names(), sampler);
  LOCKSTEP_ASSERT(name != sampler_names().end(), "{}", sampler);
  json object = {{"_class_name", name->diffusers_class}, {"_diffusers_version", kDiffusersVersion}};
  for (const Key& k : keys()) {
    if (!contains(k.samplers, sampler)) continue;
    if (json value = k.write(config); !value.is_discarded()) object[k.name] = std::move(value);
  }
  return json_text(object, 2) + "\n";
}

void write_scheduler_config(const std::string& path, const std::string& sampler,
                            const SchedulerConfig& config) {
  write_file_atomically(path, scheduler_config_text(sampler, config));
}

}  // namespace lockstep::diffusion
