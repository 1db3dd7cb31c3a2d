// SPDX-License-Identifier: Apache-2.0
// What frozen networks make of a training set, computed once before the first step instead of in each: inputs.training.cache.
// The ranks share the work, and each of them then has all of it, in memory or mapped from $XDG_CACHE_HOME/lockstep
// (~/.cache/lockstep): a file for each set, replaced where its samples are encoded by other weights, networks or
// kernels, or by another build of the program, whose kernels of the same names may give other last bits.
#pragma once

#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "runtime/checkpoint/safetensors.h"
#include "runtime/data/sample_source.h"
#include "runtime/device/memory.h"
#include "runtime/text/clip_tokenizer.h"
#include "runtime/training/session.h"

namespace lockstep {

// A row of numbers for each of some inputs.
class EncodedRows {
 public:
  EncodedRows() = default;
  EncodedRows(int64_t count, int64_t floats) : count_(count), floats_(floats) {}
  int64_t count() const { return count_; }
  int64_t floats() const { return floats_; }  // of a row; 0: these inputs are not encoded
  std::span<const float> row(int64_t i) const { return {data_ + i * floats_, static_cast<size_t>(floats_)}; }
  std::span<const std::byte> bytes() const {
    return {reinterpret_cast<const std::byte*>(data_), static_cast<size_t>(count_ * floats_) * sizeof(float)};
  }
  // Memory of their own, to be filled; or that of somebody else, which outlives them.
  float* allocate();
  void view(const float* data) { data_ = data, own_ = {}; }

 private:
  int64_t count_ = 0, floats_ = 0;
  const float* data_ = nullptr;
  AlignedBuffer own_;
};

// A set whose samples' pixels are the bytes of what a network makes of them: f32, as the objective's first encoder() gives
// them. Labels and captions are the set's own.
class EncodedSet final : public SampleSource {
 public:
  // Encodes `set`, whose samples are the same in every epoch, with the weights that the session's model has now, in batches
  // of at most `batch`, unless the file has that already. tokenizer: of captions, where these are encoded too.
  // hides_captions: "" is one of them. Collective.
  EncodedSet(Session& session, std::shared_ptr<const SampleSource> set, const ClipTokenizer* tokenizer,
             bool hides_captions, int64_t batch);

  int64_t count() const override { return set_->count(); }
  int32_t label(int64_t i) const override { return set_->label(i); }
  void copy_pixels(int64_t epoch, int64_t i, uint8_t* to) const override;
  std::vector<std::string> captions_of(int64_t epoch, int64_t i) const override {
    return set_->captions_of(epoch, i);
  }
  bool captioned() const override { return set_->captioned(); }

  // Numbers of an encoded caption; 0: captions are not encoded.
  int64_t caption_floats() const { return texts_.floats(); }
  std::span<const float> caption(const std::string& text) const { return texts_.row(rows_.at(text)); }
  // The file that they were read from; "": they were computed now.
  const std::string& read_from() const { return read_from_; }

 private:
  bool load(const std::string& file, const std::string& key);
  void store(const std::string& file, const std::string& key) const;

  std::shared_ptr<const SampleSource> set_;
  std::map<std::string, int64_t> rows_;  // of captions
  EncodedRows images_, texts_;
  std::shared_ptr<const SafetensorsFile> file_;  // that they lie in
  std::string read_from_;
};

}  // namespace lockstep
