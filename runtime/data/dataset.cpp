// SPDX-License-Identifier: Apache-2.0
#include "runtime/data/dataset.h"

#include <algorithm>
#include <functional>
#include <optional>

#include "runtime/data/cache.h"
#include "runtime/data/cifar10.h"
#include "runtime/data/hash.h"
#include "runtime/data/idx.h"
#include "runtime/data/image_folder.h"

namespace lockstep {
namespace {

const std::vector<std::string> kDigits = {"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"};
const std::vector<std::string> kFashion = {"T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
                                           "Sandal",      "Shirt",   "Sneaker",  "Bag",   "Ankle boot"};

const std::vector<std::string> kCifar10 = {"airplane", "automobile", "bird",  "cat",  "deer",
                                           "dog",      "frog",       "horse", "ship", "truck"};

// What a config names: its files, and how to read them.
struct Source {
  std::vector<std::string> files;
  std::function<ImageSet()> read;
  std::function<DatasetShape()> probe;
  std::string options = {};  // what else decides what is read, for the cache
};

Source idx_source(const IdxPaths& paths, int64_t classes, const std::vector<std::string>& names) {
  return {{paths.images, paths.labels},
          [=] {
            ImageSet set = read_idx(paths, classes);
            set.class_names = names;
            if (names.empty())
              for (int64_t i = 0; i < set.classes; ++i) set.class_names.push_back(std::to_string(i));
            return set;
          },
          [=] { return probe_idx(paths, classes); }};
}

Source find(const DatasetConfig& c, int threads) {
  LOCKSTEP_ASSERT(c.split == "training" || c.split == "test", "split \"{}\"", c.split);
  const bool test = c.split == "test";
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
            [=] { return probe_cifar10(files); }};
  }
  if (c.dataset == "image_folder") {
    const auto folder = std::make_shared<const ImageFolder>(find_image_folder(c.path, test));
    const ImageFolderOptions options{c.fit, c.on_bad_image == "skip", threads};
    return {folder->files, [=] { return read_image_folder(*folder, options); },
            [=] { return probe_image_folder(*folder, options); }, c.fit.text() + " " + c.on_bad_image};
  }
  throw Error(
      Exit::config, "E_DATASET_NAME",
      fmt::format("unknown dataset \"{}\": expected mnist, fashion_mnist, cifar10, idx or image_folder",
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

// Adds the job file's place to whatever goes wrong.
template <class F>
auto located(const DatasetConfig& config, F f) {
  try {
    return f();
  } catch (Error& e) {
    if (!config.where.empty()) e.add_place("job", config.where);
    throw;
  }
}

}  // namespace

std::shared_ptr<const ImageSet> load_dataset(const DatasetConfig& config, int threads) {
  return located(config, [&] {
    const Source source = find(config, threads);
    const DatasetCache cache(config.dataset, source.options, source.files);
    std::optional<ImageSet> set = cache.load();
    if (!set) {
      set = source.read();
      set->content_hash = hash_of(*set);
      cache.store(*set);
    }
    if (config.limit > 0 && config.limit < set->count()) {
      set->labels.resize(static_cast<size_t>(config.limit));
      set->pixels.resize(static_cast<size_t>(config.limit * set->sample_bytes()));
      set->content_hash = hash_of(*set);
    }
    return std::make_shared<const ImageSet>(std::move(*set));
  });
}

DatasetShape probe_dataset(const DatasetConfig& config) {
  return located(config, [&] {
    DatasetShape shape = find(config, 1).probe();
    if (config.limit > 0) shape.count = std::min(shape.count, config.limit);
    return shape;
  });
}

}  // namespace lockstep
