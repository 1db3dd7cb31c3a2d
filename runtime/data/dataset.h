// SPDX-License-Identifier: Apache-2.0
// Labelled images, decoded once and kept compact: uint8, [count, channels, height, width].
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kernels/core/error.h"
#include "runtime/data/sample_source.h"

namespace lockstep {

// Height and width in pixels. 0, 0: not given; width 0: one number was given.
struct Extent {
  int64_t height = 0, width = 0;
  bool given() const { return height > 0; }
  Extent both() const { return {height, width ? width : height}; }  // where one number gives both
};

// Done to every image of a training batch on its way in (kernels/image_augment/).
struct AugmentConfig {
  bool flip = false;         // mirrored left to right, every second one
  int64_t crop_padding = 0;  // a random window of the image padded by so many black pixels; 0: none
  // The size of that window, one number giving both, which is then the model's; not given: the image's. Of
  // images that are no training images the model sees the middle.
  Extent random_crop;
  bool any() const { return flip || crop_padding > 0 || random_crop.given(); }
};

// How pictures of any size become images of one. First `resize`: to height x width, whatever the proportions,
// or, where one number is given, so that the shorter side has it and the longer one floor(it x longer /
// shorter), as torchvision's Resize. Then `crop`: the middle height x width, one number giving both, as
// torchvision's CenterCrop.
struct ImageFit {
  Extent resize, crop;
  std::string text() const {
    return fmt::format("resize {}x{} crop {}x{}", resize.height, resize.width, crop.height, crop.width);
  }
};

// Of one picture, unless the job says otherwise. What claims to be larger is refused before memory is taken for it.
inline constexpr int64_t kMaxPixels = 64'000'000;

// Where captions come from: column or pattern. Neither: the set has no captions.
struct CaptionConfig {
  std::string
      column;  // of an image_folder: metadata.jsonl's column, or x.txt beside x.png (runtime/data/captions.h)
  std::string pattern;  // `template`: "a photo of a {}", of a set with classes
  double dropout = 0;   // of inputs.training: how many samples are shown without, see caption_of()
};

// `inputs.training`, `.validation`, `.test` of the job file.
struct DatasetConfig {
  std::string dataset;  // mnist, fashion_mnist, cifar10, idx, image_folder, captioned_digits
  std::string path;     // folder (or, for idx, the images file), resolved against the job file's folder
  std::string split;    // "training" or "test": which of a data set's own halves; for folders with
                        // train/ and test/ below them the one to read
  uint64_t seed = 0;    // of captioned_digits for training: the job's
  int64_t limit = 0;    // first n samples only (of an image_folder: of its first classes); 0: all
  std::vector<float> mean, std;       // `normalize`, one per channel or one for all; empty: 0 and 1
  AugmentConfig augment;              // of inputs.training only
  ImageFit fit;                       // of an image_folder, as are the next two
  std::string on_bad_image = "stop";  // stop: error data (65); skip: left out, see ImageSet::skipped
  CaptionConfig captions;
  std::string cache;                // of inputs.training: latents; "": nothing of it is encoded beforehand
  int64_t max_pixels = kMaxPixels;  // height x width of a picture at most
  std::string where, key;           // file:line:column and name of the entry, for messages
};

// Bytes that are either owned, like a vector's, or a read-only part of a mapped file.
class Pixels {
 public:
  Pixels() = default;
  Pixels(std::vector<uint8_t> bytes) : owned_(std::move(bytes)) {}  // NOLINT: meant to convert
  Pixels(std::shared_ptr<const uint8_t> mapped, size_t size)
      : mapped_(std::move(mapped)), mapped_size_(size) {}

  size_t size() const { return mapped_ ? mapped_size_ : owned_.size(); }
  bool empty() const { return size() == 0; }
  const uint8_t* data() const { return mapped_ ? mapped_.get() : owned_.data(); }
  const uint8_t* begin() const { return data(); }
  const uint8_t* end() const { return data() + size(); }
  uint8_t operator[](size_t i) const { return data()[i]; }

  // For whoever builds a set; mapped bytes cannot be written.
  uint8_t* data() { return owned().data(); }
  uint8_t* begin() { return owned().data(); }
  uint8_t* end() { return begin() + size(); }
  uint8_t& operator[](size_t i) { return owned()[i]; }
  void push_back(uint8_t byte) { owned().push_back(byte); }
  // Shrinks mapped bytes too.
  void resize(size_t size) {
    if (mapped_ && size <= mapped_size_)
      mapped_size_ = size;
    else
      owned().resize(size);
  }

 private:
  std::vector<uint8_t>& owned() {
    LOCKSTEP_ASSERT(!mapped_);
    return owned_;
  }
  std::vector<uint8_t> owned_;
  std::shared_ptr<const uint8_t> mapped_;
  size_t mapped_size_ = 0;
};

// What `check` can say of the files without decoding a pixel.
struct DatasetFiles {
  std::vector<std::string> remarks;  // of files that are passed over or left out, each with its path
  bool pictures = false;             // whose pixels may be damaged all the same
};

// In memory, the same in every epoch. Its content hash is over shape, class names in their order, labels and pixels as they
// were read, and over captions where there are any.
class ImageSet : public SampleSource {
 public:
  int64_t count() const override { return static_cast<int64_t>(labels.size()); }
  int32_t label(int64_t i) const override { return labels[static_cast<size_t>(i)]; }
  void copy_pixels(int64_t /*epoch*/, int64_t i, uint8_t* to) const override {
    std::memcpy(to, image(i), static_cast<size_t>(sample_bytes()));
  }
  std::vector<std::string> captions_of(int64_t /*epoch*/, int64_t i) const override {
    return captions.empty() ? std::vector<std::string>{} : captions[static_cast<size_t>(i)];
  }
  bool captioned() const override { return !captions.empty(); }

  const uint8_t* image(int64_t i) const { return pixels.data() + i * sample_bytes(); }

  Pixels pixels;
  std::vector<int32_t> labels;
  std::vector<std::vector<std::string>> captions;  // of each sample, at least one; empty: the set has none
};

// Throws Error: no_input (66) naming the path and the command that gets the data; data (65) naming file,
// offset, expected and found.
//   mnist, fashion_mnist  path/{train,t10k}-{images-idx3,labels-idx1}-ubyte[.gz], also -images.idx3-ubyte
//   idx           path is the images file; its labels lie beside it under the same name with `labels` for
//                 `images` and `idx1` for `idx3`, with or without .gz. Classes: the largest label + 1
//   cifar10       the binary version: path or path/cifar-10-batches-bin
//   image_folder  a folder per class, in the order of their names; PNG and JPEG files at any depth below, fitted
//                 to one size; decoded by `threads` threads. Or, without classes, the files themselves. With
//                 captions.column: the pictures that metadata.jsonl lists, in its order, or all that have a text beside them
//   captioned_digits  path as mnist's; pictures are drawn of its digits (captioned_digits.h)
// Decoded sets of a megabyte or more are kept under $XDG_CACHE_HOME/lockstep (~/.cache/lockstep).
//
// `like`: what training saw. Images come in its channels, as read_image converts them, and labels are numbers of its
// classes, found by their names. Error data (65) with the names where a class is none of them. A model whose classes have
// no names takes the set's in their order, with a remark; 65 where the set has more.
std::shared_ptr<const SampleSource> open_dataset(const DatasetConfig& config, int threads = 1,
                                                 const DatasetShape* like = nullptr);
// The same in memory; of captioned_digits the pictures of epoch 0.
std::shared_ptr<const ImageSet> load_dataset(const DatasetConfig& config, int threads = 1,
                                             const DatasetShape* like = nullptr);

// Reads only headers, labels and folder listings: what `check` and `plan` need, without decoding. The same
// errors as open_dataset, as far as headers show them; so may on_bad_image: skip still leave out more.
DatasetShape probe_dataset(const DatasetConfig& config, const DatasetShape* like = nullptr);
// Error data (65) where a model that asks for classes is given pictures in none: their labels mean nothing.
void expect_classes(const DatasetConfig& config, const DatasetShape& data);
// Names of a kind of set's classes, where the kind says them: numbers of mnist and idx, none of image_folder.
std::vector<std::string> class_names_of(const std::string& dataset, int64_t classes);
// Looks further than the headers: whether files are as long as these say, what load_dataset would remark.
DatasetFiles inspect_dataset(const DatasetConfig& config);

// One PNG or JPEG as [channels, height, width], upright as its EXIF orientation says, converted to the
// channel count asked for: 1 grey (ITU-R BT.601 luma of a colour image), 3 RGB (grey repeated; CMYK and YCCK
// as Pillow converts them); then fitted. 16 bits are scaled to 8; palettes are expanded. Error data (65) for
// a damaged file, for more than max_pixels, and for pixels that are not opaque (what lies behind them is not ours to
// choose); no_input (66) where there is none.
struct Image {
  int64_t channels = 0, height = 0, width = 0;
  std::vector<uint8_t> pixels;
  std::string remark = {};  // what was odd about its file and changes no pixel; empty: nothing
};
Image read_image(const std::string& path, int64_t channels, const ImageFit& fit = {},
                 int64_t max_pixels = kMaxPixels);
// The same of bytes in memory; `path` names them in errors.
Image decode_image(const std::string& path, std::span<const uint8_t> bytes, int64_t channels,
                   const ImageFit& fit = {}, int64_t max_pixels = kMaxPixels);
// Writes to a temporary name, then renames. Error cannot_create (73) or io (74).
void write_png(const std::string& path, const Image& image);
std::string encode_png(const Image& image);  // the bytes of such a file
// A baseline JPEG file's: colour as YCbCr with half of its chroma either way. Quality as libjpeg counts it, 1 to 100.
// Error io (74) where memory runs out.
std::string encode_jpeg(const Image& image, int quality = 75);

}  // namespace lockstep
