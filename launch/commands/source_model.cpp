// SPDX-License-Identifier: Apache-2.0
#include "launch/commands/source_model.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "launch/job/model_file.h"
#include "launch/job/tokenizer.h"
#include "launch/job/trained_model.h"
#include "models/diffusion/scheduler_config.h"
#include "runtime/files/path.h"
#include "runtime/files/utf8.h"

namespace lockstep {
namespace {

using Remarks = std::vector<std::string>;

void expect_same_tokenizer(const Job& job, const std::string& source, const std::string& hash) {
  const auto tokenizer = open_tokenizer(job);
  if (!tokenizer || hash.empty() || hash == tokenizer->content_hash()) return;
  throw Error(Exit::config, "E_TOKENIZER_MODEL",
              fmt::format("is not the tokenizer that the weights in {} were trained with: content {}, theirs "
                          "is {}",
                          source, tokenizer->content_hash().substr(0, 12), hash.substr(0, 12)))
      .at("folder", tokenizer->folder())
      .hint("the tokenizer of init_from is taken where model.tokenizer is left out");
}

// Of as many classes: outputs keep their numbers, and mean something else.
void compare_classes(const std::vector<std::string>& was, const std::vector<std::string>& now,
                     Remarks& remarks) {
  constexpr size_t kMost = 5;
  if (was.empty() || was.size() != now.size()) return;
  Remarks texts;
  size_t others = 0;
  for (size_t i = 0; i < was.size(); ++i)
    if (was[i] != now[i] && ++others <= kMost)
      texts.push_back(fmt::format("{} was {}, is {}", i, printable(was[i]), printable(now[i])));
  if (texts.empty()) return;
  if (others > kMost) texts.push_back(fmt::format("and {} more", others - kMost));
  remarks.push_back(fmt::format("trained for other classes, whose weights training starts from: {}",
                                fmt::join(texts, "; ")));
}

void compare_inputs(const InputShape& was, const InputShape& now, Remarks& remarks) {
  if (was.mean == now.mean && was.std == now.std) return;
  const auto text = [](const InputShape& in) {
    return fmt::format("mean [{}] and std [{}]", fmt::join(in.mean, ", "), fmt::join(in.std, ", "));
  };
  remarks.push_back(
      fmt::format("trained on inputs normalised by {}, this job's are by {}", text(was), text(now)));
}

void compare_noise(const diffusion::ScheduleConfig& was, const diffusion::ScheduleConfig& now,
                   Remarks& remarks) {
  Remarks texts;
  const auto compare = [&](const char* key, const auto& before, const auto& after) {
    if (before != after) texts.push_back(fmt::format("{} was {}, is {}", key, before, after));
  };
  compare("prediction_type", was.prediction_type, now.prediction_type);
  compare("num_train_timesteps", was.num_train_timesteps, now.num_train_timesteps);
  compare("rescale_betas_zero_snr", was.rescale_betas_zero_snr, now.rescale_betas_zero_snr);
  if (was.trained_betas.empty() && now.trained_betas.empty()) {
    compare("beta_schedule", was.beta_schedule, now.beta_schedule);
    compare("beta_start", was.beta_start, now.beta_start);
    compare("beta_end", was.beta_end, now.beta_end);
  } else if (was.trained_betas != now.trained_betas) {
    texts.emplace_back("trained_betas are others");
  }
  if (!texts.empty())
    remarks.push_back(fmt::format("trained with another objective: {}", fmt::join(texts, "; ")));
}

// Of a folder without model.json. What we cannot read of it is no reason not to start from its weights.
void compare_scheduler(const std::string& file, const ModelDescription& now, Remarks& remarks) {
  try {
    compare_noise(diffusion::read_scheduler_config(file).config.schedule, now.scheduler.schedule, remarks);
  } catch (const Error& e) {
    remarks.push_back(fmt::format("says nothing that this program knows of its noise: {}", e.message()));
  }
}

// Whether they are the weights that a model.json in their folder speaks of, and not a file beside them.
bool has_usual_name(const std::string& weights) {
  const std::string name = weights.substr(weights.rfind('/') + 1);
  return name == "model.safetensors" || name == "model_index.json" ||
         name.starts_with("diffusion_pytorch_model.");
}

}  // namespace

std::vector<std::string> source_remarks(const Job& job, const DatasetShape& training,
                                        const SafetensorsFile& weights) {
  Remarks remarks;
  if (!has_usual_name(weights.path())) return remarks;
  const std::string home = model_home(weights.path()), &from = job.model.init_from;
  const std::string file = home + "/" + kModelFile, scheduler = home + "/scheduler/scheduler_config.json",
                    tokenizer = home + "/tokenizer";
  const ModelDescription now = describe(job, training);
  std::string tokenizer_hash;
  if (is_there(file)) {
    const ModelDescription was = read_model_file(file);
    if (const auto hash = was.data.find("tokenizer"); hash != was.data.end()) tokenizer_hash = hash->second;
    compare_classes(was.class_names, now.class_names, remarks);
    compare_inputs(was.input, now.input, remarks);
    if (now.diffusion()) compare_noise(was.scheduler.schedule, now.scheduler.schedule, remarks);
  } else if (now.diffusion() && is_there(scheduler)) {
    compare_scheduler(scheduler, now, remarks);
  }
  if (now.model.reads_text() && tokenizer_hash.empty() && is_there(tokenizer))
    tokenizer_hash = ClipTokenizer(tokenizer).content_hash();
  expect_same_tokenizer(job, from, tokenizer_hash);
  for (std::string& remark : remarks) remark = fmt::format("model.init_from: {} was {}", from, remark);
  return remarks;
}

}  // namespace lockstep
