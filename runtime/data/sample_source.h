// SPDX-License-Identifier: Apache-2.0
// Labelled samples that batches are made of: decoded sets (ImageSet) or pictures that are drawn when they are asked for.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace lockstep {

struct DatasetShape {
  int64_t count = 0, channels = 0, height = 0, width = 0, classes = 0;
  std::vector<std::string> class_names;  // classes of them
  std::vector<int64_t> class_counts;     // samples of each class; empty where only decoding would tell
};

class SampleSource {
 public:
  virtual ~SampleSource() = default;

  virtual int64_t count() const = 0;
  virtual int32_t label(int64_t i) const = 0;
  // Writes the sample's pixels, u8 [channels, height, width], as this epoch of training shows them; epoch 0 is what is
  // evaluated. A pure function of its arguments, from any thread. i in [0, count()).
  virtual void copy_pixels(int64_t epoch, int64_t i, uint8_t* pixels) const = 0;
  // What an epoch says of the sample: captions, any of which will do; none where the set has none.
  virtual std::vector<std::string> captions_of(int64_t epoch, int64_t i) const = 0;
  virtual bool captioned() const = 0;

  int64_t sample_bytes() const { return channels * height * width; }
  DatasetShape shape() const;

  int64_t channels = 0, height = 0, width = 0;
  int64_t classes = 0;
  std::vector<std::string> class_names;  // classes of them
  // SHA-256 (hex) of what decides all samples, wherever the files lie. What is made of the set afterwards (labels as a model
  // numbers them, channels converted, its middle cut out) keeps it.
  std::string content_hash;
  std::vector<std::string> skipped;  // of images that were left out: file, and what is wrong with it
  std::vector<std::string> remarks;  // what is odd and changes no pixel; files that were passed over

 protected:
  SampleSource() = default;
  SampleSource(const SampleSource&) = default;
  SampleSource(SampleSource&&) = default;
  SampleSource& operator=(const SampleSource&) = default;
  SampleSource& operator=(SampleSource&&) = default;
};

}  // namespace lockstep
