// Labelled images, decoded once and kept compact: uint8, [count, channels, height, width].
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace lockstep {

// `inputs.training`, `.validation`, `.test` of the job file.
struct DatasetConfig {
  std::string dataset;  // mnist, fashion_mnist, cifar10, idx, image_folder
  std::string path;     // folder (or, for idx, the images file), resolved against the job file's folder
  std::string split;    // "training" or "test": which of a data set's own halves; for folders with
                        // train/ and test/ below them the one to read
  int64_t limit = 0;    // first n samples only; 0: all
  std::vector<float> mean, std;  // `normalize`, one per channel or one for all; empty: 0 and 1
  std::string where;    // file:line:column of the entry, for messages
};

class ImageSet {
 public:
  int64_t count() const { return static_cast<int64_t>(labels.size()); }
  const uint8_t* image(int64_t i) const { return pixels.data() + i * sample_bytes(); }
  int64_t sample_bytes() const { return channels * height * width; }

  int64_t channels = 0, height = 0, width = 0;
  int64_t classes = 0;
  std::vector<std::string> class_names;  // classes of them
  std::vector<uint8_t> pixels;
  std::vector<int32_t> labels;
  std::string content_hash;  // SHA-256 over shape, pixels and labels, hex
};

// Throws Error: no_input (66) naming the path and the command that gets the data; data (65) naming file,
// offset, expected and found.
std::shared_ptr<const ImageSet> load_dataset(const DatasetConfig& config);

// Reads only headers and folder listings: what `check` and `plan` need, without decoding.
struct DatasetShape {
  int64_t count = 0, channels = 0, height = 0, width = 0, classes = 0;
};
DatasetShape probe_dataset(const DatasetConfig& config);

// One PNG or JPEG as [channels, height, width], converted to the channel count asked for (1: grey, 3: RGB).
struct Image {
  int64_t channels = 0, height = 0, width = 0;
  std::vector<uint8_t> pixels;
};
Image read_image(const std::string& path, int64_t channels);
void write_png(const std::string& path, const Image& image);

}  // namespace lockstep
