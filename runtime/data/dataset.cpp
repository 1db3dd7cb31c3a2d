#include "runtime/data/dataset.h"

#include <openssl/evp.h>

#include <algorithm>

#include "runtime/data/idx.h"

namespace lockstep {
namespace {

const std::vector<std::string> kDigits = {"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"};
const std::vector<std::string> kFashion = {"T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
                                           "Sandal",      "Shirt",   "Sneaker",  "Bag",   "Ankle boot"};

bool is_mnist(const DatasetConfig& c) { return c.dataset == "mnist" || c.dataset == "fashion_mnist"; }

[[noreturn]] void unknown(const DatasetConfig& c) {
  throw Error(
      Exit::config, "E_DATASET_NAME",
      fmt::format("unknown dataset \"{}\": expected mnist, fashion_mnist, cifar10, idx or image_folder",
                  c.dataset));
}

IdxPaths idx_paths(const DatasetConfig& c) {
  if (is_mnist(c)) return find_idx(c.path, c.split == "test" ? "t10k" : "train", c.dataset);
  return find_idx_labels(c.path);
}

ImageSet read(const DatasetConfig& c) {
  if (is_mnist(c)) {
    ImageSet set = read_idx(idx_paths(c), 10);
    set.class_names = c.dataset == "mnist" ? kDigits : kFashion;
    return set;
  }
  if (c.dataset == "idx") {
    ImageSet set = read_idx(idx_paths(c), 0);
    for (int64_t i = 0; i < set.classes; ++i) set.class_names.push_back(std::to_string(i));
    return set;
  }
  unknown(c);
}

std::string hash_of(const ImageSet& set) {
  std::string head = fmt::format("lockstep images {} {} {} {} {}", set.count(), set.channels, set.height,
                                 set.width, set.classes);
  for (const std::string& name : set.class_names) head += fmt::format(" {}:{}", name.size(), name);
  head += '\n';
  const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context(EVP_MD_CTX_new(), &EVP_MD_CTX_free);
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned length = 0;
  const bool ok =
      context && EVP_DigestInit_ex(context.get(), EVP_sha256(), nullptr) == 1 &&
      EVP_DigestUpdate(context.get(), head.data(), head.size()) == 1 &&
      EVP_DigestUpdate(context.get(), set.labels.data(), set.labels.size() * sizeof(int32_t)) == 1 &&
      EVP_DigestUpdate(context.get(), set.pixels.data(), set.pixels.size()) == 1 &&
      EVP_DigestFinal_ex(context.get(), digest, &length) == 1;
  LOCKSTEP_ASSERT(ok, "SHA-256");
  std::string hex;
  for (unsigned i = 0; i < length; ++i) hex += fmt::format("{:02x}", digest[i]);
  return hex;
}

// Adds the job file's place to whatever goes wrong.
template <class F>
auto located(const DatasetConfig& config, F f) {
  LOCKSTEP_ASSERT(config.split == "training" || config.split == "test", "split \"{}\"", config.split);
  try {
    return f();
  } catch (Error& e) {
    if (!config.where.empty()) e.add_place("job", config.where);
    throw;
  }
}

}  // namespace

std::shared_ptr<const ImageSet> load_dataset(const DatasetConfig& config) {
  return located(config, [&] {
    auto set = std::make_shared<ImageSet>(read(config));
    if (config.limit > 0 && config.limit < set->count()) {
      set->labels.resize(static_cast<size_t>(config.limit));
      set->pixels.resize(static_cast<size_t>(config.limit * set->sample_bytes()));
    }
    set->content_hash = hash_of(*set);
    return std::shared_ptr<const ImageSet>(set);
  });
}

DatasetShape probe_dataset(const DatasetConfig& config) {
  return located(config, [&] {
    DatasetShape shape;
    if (is_mnist(config) || config.dataset == "idx")
      shape = probe_idx(idx_paths(config), is_mnist(config) ? 10 : 0);
    else
      unknown(config);
    if (config.limit > 0) shape.count = std::min(shape.count, config.limit);
    return shape;
  });
}

}  // namespace lockstep
