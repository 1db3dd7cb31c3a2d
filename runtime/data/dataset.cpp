// SPDX-License-Identifier: Apache-2.0
#include "runtime/data/dataset.h"

#include <algorithm>
#include <functional>
#include <optional>

#include "runtime/data/cache.h"
#include "runtime/data/captioned_digits.h"
#include "runtime/data/captions.h"
#include "runtime/data/cifar10.h"
#include "runtime/data/codec.h"
#include "runtime/data/hash.h"
#include "runtime/data/idx.h"
#include "runtime/data/image_folder.h"
#include "runtime/device/memory.h"
#include "runtime/files/utf8.h"

namespace lockstep {
namespace {

const std::vector<std::string> kDigits = {"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"};
const std::vector<std::string> kFashion = {"T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
                                           "Sandal",      "Shirt",   "Sneaker",  "Bag",   "Ankle boot"};

const std::vector<std::string> kCifar10 = {"airplane", "automobile", "bird",  "cat",  "deer",
                                           "dog",      "frog",       "horse", "ship", "truck"};

// What can be known of a set without decoding it.
struct Probe {
  DatasetShape shape;                     // but for class_counts
  std::vector<int32_t> labels;            // empty: only decoding tells
  std::vector<std::string> skipped = {};  // files that are left out
};

std::vector<std::string> numbers(int64_t count) {
  std::vector<std::string> names;
  for (int64_t i = 0; i < count; ++i) names.push_back(std::to_string(i));
  return names;
}

// What a config names: its files, and how to read them.
struct Source {
  std::vector<std::string> files;
  std::function<ImageSet()> read;
  std::function<Probe()> probe;
  std::string options = {};                // what else decides what is read, for the cache
  std::vector<std::string> remarks = {};   // on the files as they lie there
  std::function<void()> check_sizes = {};  // where the probe does not
};

Source idx_source(const IdxPaths& paths, int64_t classes, const std::vector<std::string>& names) {
  return {{paths.images, paths.labels},
          [=] {
            ImageSet set = read_idx(paths, classes);
            set.class_names = names.empty() ? numbers(set.classes) : names;
            return set;
          },
          [=] {
            Probe p;
            p.shape = probe_idx(paths, classes, p.labels);
            p.shape.class_names = names.empty() ? numbers(p.shape.classes) : names;
            return p;
          },
          {},
          {},
          [=] { check_idx_size(paths); }};
}

Source find(const DatasetConfig& c, int threads) {
  LOCKSTEP_ASSERT(c.split == "training" || c.split == "test", "split \"{}\"", c.split);
  const bool test = c.split == "test";
  if (c.dataset == "captioned_digits") {  // the digits that they are drawn of
    const IdxPaths paths = find_idx(c.path, test ? "t10k" : "train", "mnist");
    Source source = idx_source(paths, 10, kDigits);
    source.probe = [=, digits = source.probe] {
      Probe p = digits();
      expect_mnist_shape(paths.images, p.shape.height, p.shape.width);
      p.shape.channels = 3, p.shape.height = p.shape.width = kSceneSide;
      return p;
    };
    return source;
  }
  if (c.dataset == "mnist" || c.dataset == "fashion_mnist")
    return idx_source(find_idx(c.path, test ? "t10k" : "train", c.dataset), 10,
                      c.dataset == "mnist" ? kDigits : kFashion);
  if (c.dataset == "idx") return idx_source(find_idx_labels(c.path), 0, {});
  if (c.dataset == "cifar10") {
    const std::vector<std::string> files = find_cifar10(c.path, test);
    return {files,
            [=] {
              ImageSet set = read_cifar10(files);
              set.class_names = kCifar10;
              return set;
            },
            [=] {
              Probe p{probe_cifar10(files), {}};
              p.shape.class_names = kCifar10;
              return p;
            },
            {},
            {},
            [=] { check_cifar10_sizes(files); }};
  }
  if (c.dataset == "image_folder") {
    const bool captioned = !c.captions.column.empty();
    const auto folder = std::make_shared<const ImageFolder>(
        captioned ? find_captioned_folder(c.path, test, c.captions.column) : find_image_folder(c.path, test));
    const ImageFolderOptions options{c.fit, c.on_bad_image == "skip", c.max_pixels, threads};
    Source source{folder->files, [=] { return read_image_folder(*folder, options); },
                  [=] {
                    Probe p;
                    p.shape = probe_image_folder(*folder, options, p.labels, p.skipped);
                    p.shape.class_names = folder->classes;
                    return p;
                  },
                  fmt::format("{} {} {}", c.fit.text(), c.on_bad_image, c.max_pixels)};
    if (captioned) source.options += " captions " + c.captions.column;
    source.files.insert(source.files.end(), folder->caption_files.begin(), folder->caption_files.end());
    if (!folder->remark.empty()) source.remarks.push_back(folder->remark);
    const char* why = captioned ? ": without caption, passed over" : ": in no class's folder, passed over";
    for (const std::string& file : folder->passed_over)
      source.remarks.push_back(file + (looks_like_picture(file) ? why : ": no picture, passed over"));
    return source;
  }
  throw Error(
      Exit::config, "E_DATASET_NAME",
      fmt::format("unknown dataset \"{}\": expected mnist, fashion_mnist, cifar10, idx, image_folder or "
                  "captioned_digits",
                  c.dataset));
}

std::string hash_of(const ImageSet& set) {
  Digest digest("sha256");
  digest.add(fmt::format("lockstep images {} {} {} {} {}", set.count(), set.channels, set.height, set.width,
                         set.classes));
  for (const std::string& name : set.class_names) digest.add(fmt::format(" {}:{}", name.size(), name));
  digest.add("\n");
  digest.add(set.labels.data(), set.labels.size() * sizeof(int32_t));
  digest.add(set.pixels.begin(), set.pixels.size());
  return digest.hex();
}

void add_captions_to_hash(ImageSet& set) {
  Digest digest("sha256");
  digest.add("lockstep captions " + set.content_hash);
  for (const auto& captions : set.captions) {
    digest.add(fmt::format("\n{}", captions.size()));
    for (const std::string& caption : captions) digest.add(fmt::format(" {}:{}", caption.size(), caption));
  }
  set.content_hash = digest.hex();
}

std::string quoted(const std::vector<std::string>& names) {
  constexpr size_t kMost = 8;
  std::string text;
  for (size_t i = 0; i < std::min(kMost, names.size()); ++i)
    text += fmt::format("{}\"{}\"", i ? ", " : "", printable(names[i]));
  if (names.size() > kMost) text += fmt::format(" and {} more", names.size() - kMost);
  return text;
}

std::vector<std::string> names_missing_in(const std::vector<std::string>& names,
                                          const std::vector<std::string>& from) {
  std::vector<std::string> missing;
  for (const std::string& name : names)
    if (std::find(from.begin(), from.end(), name) == from.end()) missing.push_back(name);
  return missing;
}

// Labels of pictures without classes are not looked at: either side may have none.
void expect_known_classes(const std::string& path, const std::vector<std::string>& names,
                          const std::vector<std::string>& known) {
  if (names.empty() || known.empty()) return;
  if (const auto unknown = names_missing_in(names, known); !unknown.empty())
    throw Error(Exit::data, "E_DATA_CLASSES",
                fmt::format("{} {} not among the classes that were trained: {}", quoted(unknown),
                            unknown.size() == 1 ? "is" : "are", quoted(known)))
        .at("file", path)
        .hint("classes are matched by their names");
}

// The classes of a model that knows no names are numbers; a set's are taken in their order.
void number_classes(ImageSet& set, int64_t classes, const std::string& path) {
  if (set.classes > classes)
    throw Error(Exit::data, "E_DATA_CLASSES",
                fmt::format("{} classes, where the model has {}, without names", set.classes, classes))
        .at("file", path);
  if (set.class_names != numbers(set.classes))
    set.remarks.push_back(
        fmt::format("{}: the model's classes have no names: {} are taken for 0 to {}, in this order", path,
                    quoted(set.class_names), set.classes - 1));
  set.class_names.clear();
  set.classes = classes;
}

// As a model that has seen `like` takes them.
void conform(ImageSet& set, const DatasetShape& like, const std::string& path) {
  convert_channels(set, like.channels);
  if (!set.class_names.empty() && like.class_names.empty() && like.classes > 0)
    return number_classes(set, like.classes, path);
  expect_known_classes(path, set.class_names, like.class_names);
  if (!set.class_names.empty() && set.class_names != like.class_names) {
    std::vector<int32_t> number(set.class_names.size());  // 0 where the model knows no classes
    for (size_t c = 0; c < number.size() && !like.class_names.empty(); ++c)
      number[c] = static_cast<int32_t>(
          std::find(like.class_names.begin(), like.class_names.end(), set.class_names[c]) -
          like.class_names.begin());
    for (int32_t& label : set.labels) label = number[static_cast<size_t>(label)];
    if (const auto missing = names_missing_in(like.class_names, set.class_names); !missing.empty())
      set.remarks.push_back(fmt::format("{}: no images of {}", path, quoted(missing)));
  }
  if (set.classes > 0 || like.classes == 0) {  // else they stay pictures in no class
    set.class_names = like.class_names;
    set.classes = like.classes;
  }
}

// Adds the job file's place to whatever goes wrong.
template <class F>
auto located(const DatasetConfig& config, F f) {
  try {
    return f();
  } catch (Error& e) {
    if (!config.where.empty()) e.add_place("job", config.where), e.add_place("key", config.key);
    throw;
  } catch (const std::bad_alloc&) {
    Error e = out_of_memory();
    e.add_place("file", config.path);
    if (!config.where.empty()) e.add_place("job", config.where), e.add_place("key", config.key);
    throw e;
  }
}

}  // namespace

DatasetShape SampleSource::shape() const {
  DatasetShape shape{count(), channels, height, width, classes, class_names, {}};
  shape.class_counts.resize(class_names.size());
  if (!class_names.empty())
    for (int64_t i = 0; i < count(); ++i) ++shape.class_counts[static_cast<size_t>(label(i))];
  return shape;
}

namespace {

// What lies at the path; of captioned_digits the digits.
ImageSet decoded(const DatasetConfig& config, int threads) {
  const Source source = find(config, threads);
  const DatasetCache cache(config.dataset == "captioned_digits" ? "mnist" : config.dataset, source.options,
                           source.files);
  std::optional<ImageSet> set = cache.load();
  if (!set) {
    set = source.read();
    set->content_hash = hash_of(*set);
    cache.store(*set);
  }
  set->remarks.insert(set->remarks.end(), source.remarks.begin(), source.remarks.end());
  if (config.limit > 0 && config.limit < set->count()) {
    set->labels.resize(static_cast<size_t>(config.limit));
    if (!set->captions.empty()) set->captions.resize(set->labels.size());
    set->pixels.resize(static_cast<size_t>(config.limit * set->sample_bytes()));
    set->content_hash = hash_of(*set);
  }
  if (!config.captions.pattern.empty()) caption_by_class(*set, config.captions.pattern);
  if (!set->captions.empty()) add_captions_to_hash(*set);
  return std::move(*set);
}

CaptionedDigits drawn(const DatasetConfig& config, int threads) {
  if (!config.captions.column.empty() || !config.captions.pattern.empty())
    throw Error(Exit::config, "E_CAPTIONS", "captioned_digits come with captions of their own");
  return {decoded(config, threads), config.split, config.seed, config.path};
}

ImageSet in_memory(const SampleSource& from) {
  ImageSet set;
  set.channels = from.channels, set.height = from.height, set.width = from.width;
  set.classes = from.classes, set.class_names = from.class_names;
  set.content_hash = from.content_hash;
  set.skipped = from.skipped, set.remarks = from.remarks;
  set.pixels.resize(static_cast<size_t>(from.count() * from.sample_bytes()));
  for (int64_t i = 0; i < from.count(); ++i) {
    set.labels.push_back(from.label(i));
    if (from.captioned()) set.captions.push_back(from.captions_of(0, i));
    from.copy_pixels(0, i, set.pixels.data() + i * from.sample_bytes());
  }
  return set;
}

}  // namespace

std::shared_ptr<const ImageSet> load_dataset(const DatasetConfig& config, int threads,
                                             const DatasetShape* like) {
  return located(config, [&] {
    ImageSet set =
        config.dataset == "captioned_digits" ? in_memory(drawn(config, threads)) : decoded(config, threads);
    if (like) conform(set, *like, config.path);
    return std::make_shared<const ImageSet>(std::move(set));
  });
}

std::shared_ptr<const SampleSource> open_dataset(const DatasetConfig& config, int threads,
                                                 const DatasetShape* like) {
  // Where a model knows other channels or classes, the pictures are converted.
  const bool other =
      like && (like->channels != 3 || (!like->class_names.empty() && like->class_names != kDigits));
  if (config.dataset != "captioned_digits" || other) return load_dataset(config, threads, like);
  return located(config, [&] { return std::make_shared<const CaptionedDigits>(drawn(config, threads)); });
}

DatasetShape probe_dataset(const DatasetConfig& config, const DatasetShape* like) {
  return located(config, [&] {
    auto [shape, labels, skipped] = find(config, 1).probe();
    if (config.limit > 0) shape.count = std::min(shape.count, config.limit);
    if (!labels.empty() && !shape.class_names.empty()) {
      shape.class_counts.resize(shape.class_names.size());
      for (int64_t i = 0; i < shape.count; ++i)
        ++shape.class_counts[static_cast<size_t>(labels[static_cast<size_t>(i)])];
    }
    if (like) {
      expect_known_classes(config.path, shape.class_names, like->class_names);
      shape.channels = like->channels;
    }
    return shape;
  });
}

void expect_classes(const DatasetConfig& config, const DatasetShape& data) {
  if (data.classes > 0) return;
  located(config, [&]() -> void {
    throw Error(Exit::data, "E_DATA_CLASSES",
                "the model learns classes, but the pictures lie in no folders of classes")
        .at("file", config.path)
        .hint("a folder per class, its name being the class's");
  });
}

std::vector<std::string> class_names_of(const std::string& dataset, int64_t classes) {
  if (dataset == "fashion_mnist") return kFashion;
  if (dataset == "cifar10") return kCifar10;
  return dataset == "image_folder" ? std::vector<std::string>{} : numbers(classes);
}

DatasetFiles inspect_dataset(const DatasetConfig& config) {
  return located(config, [&] {
    const Source source = find(config, 1);
    if (source.check_sizes) source.check_sizes();
    DatasetFiles files{source.probe().skipped, config.dataset == "image_folder"};
    files.remarks.insert(files.remarks.end(), source.remarks.begin(), source.remarks.end());
    return files;
  });
}

}  // namespace lockstep
