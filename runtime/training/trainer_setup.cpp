// SPDX-License-Identifier: Apache-2.0
#include <spdlog/spdlog.h>

#include <cstring>
#include <functional>

#include "runtime/checkpoint/weights_hash.h"
#include "runtime/comm/agree.h"
#include "runtime/comm/together.h"
#include "runtime/comm/whereabouts.h"
#include "runtime/data/captions.h"
#include "runtime/data/fit.h"
#include "runtime/data/hash.h"
#include "runtime/files/json_text.h"
#include "runtime/files/path.h"
#include "runtime/telemetry/run_folder.h"
#include "runtime/training/state_io.h"
#include "runtime/training/trainer_parts.h"

namespace lockstep {
namespace {

using nlohmann::json;

std::string hash_of(const std::string& text) { return sha256_hex(std::as_bytes(std::span(text))); }

// Adds where the job names the weights to start from to what is wrong with them.
void of_init_from(const TrainerOptions& o, const std::function<void()>& work) {
  try {
    work();
  } catch (Error& e) {
    const std::string key = "model.init_from";
    if (const auto row = o.job.find(key); row != o.job.end()) e.add_place("job", row->second.where);
    e.add_place("key", key);
    throw;
  }
}

}  // namespace

std::shared_ptr<const SampleSource> Trainer::load(const std::string& key, const DatasetConfig& config,
                                                  const DatasetShape* like) {
  auto set = open_dataset(config, o_.kernels.threads, like);
  record_.sets["inputs." + key] = set_record(config.path, *set);
  const auto left_out = static_cast<int64_t>(set->skipped.size());
  skipped_images_ += left_out;
  if (root() && left_out > 0) {
    for (const std::string& image : set->skipped) spdlog::info("skipped {}", image);
    spdlog::warn("{} of {} images in {} are damaged and were skipped; the log names them", left_out,
                 left_out + set->count(), config.path);
  }
  if (root() && !set->remarks.empty()) {
    for (const std::string& remark : set->remarks) spdlog::info("{}", remark);
    spdlog::warn("{}{}", set->remarks[0],
                 set->remarks.size() > 1
                     ? fmt::format(" (and {} more such remarks in the log)", set->remarks.size() - 1)
                     : "");
  }
  if (o_.tokenizer && !set->captioned())
    throw Error(Exit::data, "E_CAPTIONS", "the model reads captions, and these pictures have none")
        .at("file", config.path)
        .at("job", config.where)
        .at("key", config.key)
        .hint("captions.column names them, captions.template makes them of the classes' names");
  return set;
}

CaptionTokens Trainer::caption_tokens() const {
  if (!o_.tokenizer) return {};
  const double dropout = o_.training_data.captions.dropout;
  if (encoded_ && encoded_->caption_floats() > 0)
    return {
        encoded_->caption_floats(), [this, dropout](int64_t epoch, int64_t sample, std::span<int32_t> out) {
          const auto row = encoded_->caption(caption_of(*training_, sample, o_.config.seed, epoch, dropout));
          std::memcpy(out.data(), row.data(), row.size_bytes());
        }};
  return {o_.tokenizer->length(), [this, dropout](int64_t epoch, int64_t sample, std::span<int32_t> out) {
            o_.tokenizer->tokens(caption_of(*training_, sample, o_.config.seed, epoch, dropout), out,
                                 SpecialTokens::as_text);
          }};
}

void Trainer::load_data() {
  together(comm_, [&] {
    const OwnWork own("reading data");
    training_ = load("training", o_.training_data);
    const DatasetShape seen = training_->shape();
    if (o_.validation_data) validation_ = load("validation", *o_.validation_data, &seen);
    if (o_.test_data) test_ = load("test", *o_.test_data, &seen);
    if (o_.validation_fraction > 0) {
      validation_subset_ = validation_indices(training_->count(), o_.validation_fraction, o_.config.seed);
      training_subset_ = training_indices(training_->count(), o_.validation_fraction, o_.config.seed);
      validation_ = training_;
    }
    if (o_.tokenizer)
      record_.sets["model.tokenizer"] = {o_.tokenizer->folder(), o_.tokenizer->content_hash(), {}};
    const InputShape& input = input_ = input_shape(o_.training_data, training_->shape());
    objective_ = o_.objective(input);
    if (input.augment.random_crop.given()) {
      const Extent window{input.height, input.width};
      if (validation_) {
        const DatasetConfig& config = o_.validation_data ? *o_.validation_data : o_.training_data;
        validation_ = middle_of(config.path, *validation_, window, validation_subset_);
        validation_subset_.clear();
      }
      if (test_) test_ = middle_of(o_.test_data->path, *test_, window);
    }
    if (o_.validation_data) expect_size(*o_.validation_data, validation_->shape(), input);
    if (o_.test_data) expect_size(*o_.test_data, test_->shape(), input);
  });
  agree_on_inputs();
  const int64_t samples =
      training_subset_.empty() ? training_->count() : static_cast<int64_t>(training_subset_.size());
  schedule_ = std::make_unique<Schedule>(o_.config, samples, comm_.size());
}

void Trainer::agree_on_inputs() {
  std::vector<std::pair<std::string, std::string>> facts;
  for (const auto& [key, set] : record_.sets)
    facts.emplace_back(fmt::format("{} ({})", key, set.path), "content " + set.content.substr(0, 12));
  if (!o_.init_from.empty() && !o_.resume) {
    // Rank 0 reads the weights for all; where others see such a file too, it is the same.
    together(comm_, [&] {
      if (!root() && !is_there(o_.init_from)) return;
      of_init_from(o_, [&] {
        weights_ = open_model(o_.init_from);
        if (!root()) return;
        for (const std::string& remark : o_.source_remarks(training_->shape(), *weights_))
          spdlog::warn("{}", remark);
      });
      record_.init_from = hash_of_weights(*weights_);
    });
    facts.emplace_back(fmt::format("init_from ({})", o_.init_from),
                       record_.init_from.empty() ? "" : "content " + record_.init_from.substr(0, 12));
  }
  require_agreement(comm_, facts);
}

void Trainer::make_session() {
  SessionOptions s;
  s.objective = objective_;
  s.programs = o_.programs(input_);
  s.config = o_.config;
  s.kernels = o_.kernels;
  s.device = o_.device;
  s.collectives = o_.collectives;
  if (saved_)
    for (const auto& [signature, kernel] : saved_->kernels) s.pinned[signature] = kernel;
  s.retune = o_.retune;
  if (saved_) bit_exact_ = saved_->bit_exact;
  session_ = std::make_unique<Session>(std::move(s), comm_);
  session_->prepare_training(schedule_->nominal_part());
  bit_exact_ &= !session_->retuned();
  for (int64_t images : evaluated_images())
    session_->prepare(session_->evaluation(), evaluation_batch(o_.config, images, comm_.size()));
  // Every plan of this rank now, so that no step allocates and the arena has its size.
  for (int64_t m = 0; m < schedule_->micro_batches(); ++m)
    for (int64_t n : schedule_->part_sizes(m, comm_.rank())) session_->training(n, m);
  for (int64_t images : evaluated_images())
    if (const int64_t mine = slice_of(images, comm_.size(), comm_.rank()).size(); mine > 0)
      session_->program(session_->evaluation(),
                        std::min(evaluation_batch(o_.config, images, comm_.size()), mine));
}

std::vector<int64_t> Trainer::evaluated_images() const {
  std::vector<int64_t> counts;
  if (validation_)
    counts.push_back(validation_subset_.empty() ? validation_->count()
                                                : static_cast<int64_t>(validation_subset_.size()));
  if (test_) counts.push_back(test_->count());
  return counts;
}

void Trainer::restore() {
  ModelState& m = session_->model();
  on_root(comm_, [&]() -> std::string {
    if (checkpoint_) {
      load_averaged_tensors(m, *checkpoint_->model, checkpoint_->folder + "/model.safetensors");
      load_optimizer_tensors(m, *checkpoint_->state, checkpoint_->folder + "/state.safetensors");
      expect_finite_weights(averaged_tensors(m), checkpoint_->folder + "/model.safetensors");
      expect_finite_weights(optimizer_tensors(m), checkpoint_->folder + "/state.safetensors");
    } else {
      m.initialise(o_.config.seed);
      if (!o_.init_from.empty())
        of_init_from(o_, [&] {
          if (!weights_) weights_ = open_model(o_.init_from);
          load_model_tensors(m, *weights_, o_.init_from);
          expect_finite_weights(model_tensors(m), o_.init_from);
        });
      m.batches_tracked = 0;
      m.start_ema();
    }
    return "";
  });
  weights_.reset();
  auto share = [&](AlignedBuffer& b) {
    comm_.broadcast({b.as<std::byte>(), static_cast<size_t>(b.bytes())}, 0);
  };
  share(m.parameters), share(m.buffers);
  for (auto& s : m.state) share(s);
  if (m.has_ema()) share(m.ema);
  session_->executor().upload_model();
  if (saved_) {
    step_ = saved_->step;
    m.batches_tracked = saved_->batches_tracked;
    earlier_seconds_ = saved_->seconds;
    training_seconds_ = saved_->training_seconds;
    samples_seen_ = saved_->samples_seen;
    best_ = saved_->best, best_folder_ = saved_->best_folder;
    if (saved_->stop) early_.restore(*saved_->stop);
    changes_ = saved_->changes;
    record_.init_from = saved_->init_from;
  }
  checkpoint_.reset();
}

void Trainer::encode_training_set() {
  if (!input_.encoded) return;
  const auto start = Clock::now();
  encoded_ = std::make_shared<EncodedSet>(*session_, training_, o_.tokenizer.get(),
                                          o_.training_data.captions.dropout > 0, schedule_->nominal_part());
  const std::string& file = encoded_->read_from();
  spdlog::info("latents of {} images {} in {:.1f} s", encoded_->count(),
               file.empty() ? "computed" : "read from " + file, since(start));
}

std::vector<std::pair<std::string, std::string>> Trainer::facts() {
  std::string kernels;
  for (const auto& [signature, kernel] : session_->kernel_table())
    kernels += signature + " = " + kernel + "\n";
  // Of the variant that finishes a step: it holds every collective; local batch sizes differ and are left
  // out.
  const int64_t last = schedule_->micro_batches() - 1;
  const int64_t n = *schedule_->part_sizes(last, comm_.rank()).rbegin();
  return {{"parameter layout", hash_of(session_->model().table.text())},
          {"kernel table", hash_of(kernels)},
          {"collective schedule", hash_of(session_->training(n, last).plan->collective_schedule())}};
}

void Trainer::open_outputs() {
  if (!root()) return;
  const OwnWork own("opening the run's files");
  std::map<std::string, std::string> data = {{"training", training_->content_hash}};
  if (o_.validation_data) data["validation"] = validation_->content_hash;
  if (test_) data["test"] = test_->content_hash;
  if (o_.tokenizer) data["tokenizer"] = o_.tokenizer->content_hash();
  description_ = o_.describe(training_->shape(), data);
  metrics_ = std::make_unique<MetricsWriter>(o_.run_folder + "/metrics.jsonl",
                                             o_.resume ? std::optional(step_) : std::nullopt);
  tensorboard_ = std::make_unique<TensorBoardWriter>(o_.run_folder + "/tensorboard",
                                                     o_.resume ? std::optional(step_) : std::nullopt);
  const int64_t spe = schedule_->steps_per_epoch();
  progress_ =
      std::make_unique<Progress>(stdout, Progress::detect(), (schedule_->total_steps() + spe - 1) / spe, spe);
  route_warnings([this](const std::string& w) { progress_->message(w); });
  const int64_t n = schedule_->nominal_part();
  json plan = to_json(*session_->training(n, schedule_->micro_batches() - 1).plan);
  plan["kernels"] = session_->kernel_table();
  plan["ranks"] = comm_.size();
  plan["batch_per_rank"] = n;
  plan["memory"] = {{"peak", session_->memory().total()}, {"activations", session_->memory().arena}};
  plan["bit_exact"] = bit_exact_;
  write_file_atomically(o_.run_folder + "/plan.json", json_text(plan, 1) + "\n");
}

void expect_size(const DatasetConfig& config, const DatasetShape& data, const InputShape& input) {
  if (data.height == input.height && data.width == input.width) return;
  Error error(Exit::data, "E_DATA_SHAPE",
              fmt::format("expected images of {}x{}, the size that is trained, found {}x{}", input.height,
                          input.width, data.height, data.width));
  error.add_place("file", config.path);
  if (!config.where.empty()) error.add_place("job", config.where), error.add_place("key", config.key);
  error.set_hint("resize and crop make pictures of a folder one size");
  throw error;
}

InputShape input_shape(const DatasetConfig& config, const DatasetShape& data) {
  InputShape s{data.channels, data.height, data.width, data.classes, config.mean, config.std, config.augment};
  if (const Extent window = config.augment.random_crop.both(); window.given()) {
    if (window.height > data.height || window.width > data.width)
      throw Error(Exit::config, "E_JOB_CROP",
                  fmt::format("random_crop {}x{} is larger than the images, {}x{}", window.height,
                              window.width, data.height, data.width))
          .at("job", config.where)
          .at("key", "inputs.training.augment.random_crop");
    s.uncropped = {data.height, data.width};
    s.height = window.height, s.width = window.width;
  }
  s.encoded = !config.cache.empty();
  auto widen = [&](std::vector<float>& v, float fallback) {
    if (v.empty()) v = {fallback};
    if (v.size() == 1) v.assign(static_cast<size_t>(data.channels), v[0]);
  };
  widen(s.mean, 0.0f);
  widen(s.std, 1.0f);
  return s;
}

}  // namespace lockstep
