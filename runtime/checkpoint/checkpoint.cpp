// SPDX-License-Identifier: Apache-2.0
#include "runtime/checkpoint/checkpoint.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <filesystem>

#include "kernels/core/error.h"
#include "runtime/checkpoint/file_io.h"
#include "runtime/checkpoint/manifest.h"
#include "runtime/files/file_lock.h"
#include "runtime/files/json_text.h"
#include "runtime/files/path.h"

namespace lockstep {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view kStep = "step-";
const std::map<std::string, std::string> kPyTorch{{"format", "pt"}};  // what PyTorch's loaders look for

std::string checkpoints_of(const std::string& run_folder) { return run_folder + "/checkpoints"; }

// The step in a checkpoint folder's name; -1 where the name is none of ours.
int64_t step_of(const std::string& name) {
  if (!name.starts_with(kStep)) return -1;
  int64_t step = -1;
  const auto [end, error] = std::from_chars(name.data() + kStep.size(), name.data() + name.size(), step);
  return error == std::errc() && end == name.data() + name.size() ? step : -1;
}

// A folder under a temporary name. It is locked while its writer lives: one that can be locked is an orphan.
class TemporaryFolder {
 public:
  TemporaryFolder(const std::string& parent, const std::string& name)
      : parent_(parent), path_(temporary_path(parent + "/" + name)) {
    if (::mkdir(path_.c_str(), 0777) != 0)
      throw_io(IoStage::creating, "cannot create the folder", path_, errno);
    try {
      lock_ = FileLock::try_lock(path_);
    } catch (const Error&) {
      ::rmdir(path_.c_str());
      throw;
    }
  }
  ~TemporaryFolder() {
    std::error_code ignored;  // not committed, or what the commit has replaced
    fs::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const std::string& path() const { return path_; }
  std::string file(const std::string& name) const { return path_ + "/" + name; }

  // Makes it visible. A checkpoint of the same step is exchanged in one go; where the file system cannot do
  // that it is moved aside first.
  void commit(const std::string& final_path) {
    sync_folder(path_);
    int result = ::renameat2(AT_FDCWD, path_.c_str(), AT_FDCWD, final_path.c_str(), RENAME_NOREPLACE);
    if (result != 0 && errno == EEXIST) {
      result = ::renameat2(AT_FDCWD, path_.c_str(), AT_FDCWD, final_path.c_str(), RENAME_EXCHANGE);
      if (result != 0 && errno == EINVAL) {
        const std::string aside = path_ + std::string(kOldFolder);
        result = ::rename(final_path.c_str(), aside.c_str());
        if (result == 0) result = ::rename(path_.c_str(), final_path.c_str());
        std::error_code ignored;
        if (result == 0) fs::remove_all(aside, ignored);
      }
    } else if (result != 0 && errno == EINVAL) {
      result = ::rename(path_.c_str(), final_path.c_str());  // no RENAME_NOREPLACE there
    }
    if (result != 0) throw_io(IoStage::creating, "cannot rename the finished checkpoint", final_path, errno);
    sync_folder(parent_);
  }

 private:
  std::string parent_, path_;
  FileLock lock_;
};

// A checkpoint disappears at once too: it is renamed first.
void prune(const std::string& run_folder, int64_t step, int keep, const std::string& protect) {
  if (keep <= 0) return;
  std::vector<std::string> candidates;
  for (const std::string& folder : list_checkpoints(run_folder))
    if (step_of(fs::path(folder).filename()) <= step) candidates.push_back(folder);
  const std::string protected_name = fs::path(protect).filename();
  for (size_t i = 0; i + static_cast<size_t>(keep) < candidates.size(); ++i) {
    const std::string name = fs::path(candidates[i]).filename();
    if (name == protected_name) continue;
    const std::string gone = temporary_path(candidates[i]);
    if (::rename(candidates[i].c_str(), gone.c_str()) != 0)
      throw_io(IoStage::writing, "cannot remove the old checkpoint", candidates[i], errno);
    std::error_code ignored;  // an orphan for the next time
    fs::remove_all(gone, ignored);
  }
}

std::shared_ptr<const SafetensorsFile> open_verified(const std::string& folder, const std::string& name,
                                                     const nlohmann::json& files) {
  auto file = SafetensorsFile::open(folder + "/" + name);
  verify_safetensors(files, name, *file);
  return file;
}

}  // namespace

std::string checkpoint_name(int64_t step) { return fmt::format("{}{:08}", kStep, step); }

std::string write_checkpoint(const std::string& run_folder, const CheckpointContents& contents, int keep,
                             const std::string& protect) {
  LOCKSTEP_ASSERT(contents.meta.contains("step") && contents.meta["step"].is_number_integer());
  const int64_t step = contents.meta["step"];
  LOCKSTEP_ASSERT(step >= 0);
  const std::string parent = checkpoints_of(run_folder);
  make_folders(parent);
  remove_stale_files(parent);

  const std::string name = checkpoint_name(step);
  const std::string path = parent + "/" + name;
  const SafetensorsWriter model = model_writer(contents.model), state(contents.state, {});
  const std::string meta = json_text(contents.meta, 1) + "\n";
  TemporaryFolder temporary(parent, name);
  model.write(temporary.file("model.safetensors"));
  state.write(temporary.file("state.safetensors"));
  const auto write_text = [&](const std::string& file_name, std::string_view text) {
    OutputFile file(temporary.file(file_name));
    file.write(text);
    file.sync_and_close();
  };
  nlohmann::json files = {{"model.safetensors", describe_safetensors(model, contents.model)},
                          {"state.safetensors", describe_safetensors(state, contents.state)},
                          {"meta.json", describe_text(meta)}};
  write_text("meta.json", meta);
  if (!contents.description.is_null()) {
    const std::string text = json_text(contents.description, 1) + "\n";
    write_text("model.json", text);
    files["model.json"] = describe_text(text);
  }
  contents.write_beside(temporary.path());
  write_text("manifest.json", seal_manifest(files));
  temporary.commit(path);
  prune(run_folder, step, keep, protect);
  return path;
}

LoadedCheckpoint load_checkpoint(const std::string& folder) {
  if (!is_folder(folder))
    throw Error(Exit::no_input, "E_NO_CHECKPOINT", "no such checkpoint folder").at("file", folder);
  try {
    const nlohmann::json files = read_manifest(folder + "/manifest.json");
    LoadedCheckpoint loaded;
    loaded.folder = folder;
    const std::string meta_path = folder + "/meta.json";
    const MappedFile meta(meta_path);
    verify_text(files, "meta.json", meta, meta_path);
    loaded.meta = nlohmann::json::parse(meta.text(), nullptr, false);
    if (!loaded.meta.is_object() || !loaded.meta.contains("step") ||
        !loaded.meta["step"].is_number_integer() || loaded.meta["step"] < 0)
      throw Error(Exit::data, "E_CKPT_META", "expected an object with a whole-number \"step\", not below 0")
          .at("file", meta_path);
    if (files.contains("model.json")) {
      const std::string description_path = folder + "/model.json";
      verify_text(files, "model.json", MappedFile(description_path), description_path);
    }
    loaded.model = open_verified(folder, "model.safetensors", files);
    loaded.state = open_verified(folder, "state.safetensors", files);
    return loaded;
  } catch (const Error& error) {
    // The folder is there, so a file of it that is not is damage.
    if (error.exit() != Exit::no_input) throw;
    Error damaged(Exit::data, "E_CKPT_INCOMPLETE", error.message());
    for (const auto& [key, value] : error.places()) damaged.add_place(key, value);
    throw damaged;
  }
}

std::vector<std::string> list_checkpoints(const std::string& run_folder) {
  std::vector<std::pair<int64_t, std::string>> found;
  const std::string parent = checkpoints_of(run_folder);
  for (const std::string& name : is_folder(parent) ? names_in(parent) : std::vector<std::string>()) {
    const int64_t step = step_of(name);
    if (step >= 0 && is_folder(parent + "/" + name)) found.emplace_back(step, parent + "/" + name);
  }
  std::sort(found.begin(), found.end());
  std::vector<std::string> folders;
  for (auto& [step, folder] : found) folders.push_back(std::move(folder));
  return folders;
}

std::optional<LoadedCheckpoint> load_newest_checkpoint(const std::string& run_folder,
                                                       const std::function<void(const std::string&)>& warn) {
  const std::vector<std::string> folders = list_checkpoints(run_folder);
  std::vector<Error> damage;
  for (auto folder = folders.rbegin(); folder != folders.rend(); ++folder) {
    try {
      LoadedCheckpoint loaded = load_checkpoint(*folder);
      if (warn)
        for (const Error& error : damage)
          warn(fmt::format("passed over a damaged checkpoint: {}", error.what()));
      return loaded;
    } catch (const Error& error) {
      damage.push_back(error);
    }
  }
  if (damage.empty()) return std::nullopt;
  throw Error(damage.front()).hint("no checkpoint of this run is whole; start a new run");
}

std::shared_ptr<const SafetensorsFile> open_model(const std::string& path,
                                                  const std::function<void(const std::string&)>& warn,
                                                  Verification verification) {
  const char* const hint = "`lockstep fit JOB --output DIR` trains a model and leaves it in DIR";
  const PathKind kind = path_kind(path);
  if (kind == PathKind::none)
    throw Error(Exit::no_input, "E_NO_MODEL", "no such file or folder").at("file", path).hint(hint);
  if (kind != PathKind::folder) return open_weights(path, verification);
  if (is_there(path + "/manifest.json") || is_there(path + "/state.safetensors"))
    return load_checkpoint(path).model;
  if (const auto networks = find_networks(path); !networks.empty())
    return open_networks(path, networks, verification);
  if (const std::string file = find_weights(path); !file.empty()) return open_weights(file, verification);
  if (auto newest = load_newest_checkpoint(path, warn)) return newest->model;
  if (const std::string foreign = find_foreign_weights(path); !foreign.empty()) return open_weights(foreign);
  throw Error(Exit::no_input, "E_NO_MODEL",
              "neither weights (model.safetensors) nor a checkpoint in this folder")
      .at("file", path)
      .hint(hint);
}

SafetensorsWriter model_writer(std::span<const StoredTensor> tensors) {
  return SafetensorsWriter(tensors, kPyTorch);
}

void export_model(const std::string& file, std::span<const StoredTensor> tensors) {
  const SafetensorsWriter writer = model_writer(tensors);
  replace_file(file, [&](const std::string& temporary) { writer.write(temporary); });
}

}  // namespace lockstep
