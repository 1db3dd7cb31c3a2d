// SPDX-License-Identifier: Apache-2.0
#include "models/diffusion/folder.h"

#include <initializer_list>
#include <nlohmann/json.hpp>

#include "models/autoencoder_kl.h"
#include "models/autoencoder_tiny.h"
#include "models/clip_text.h"
#include "models/diffusion/scheduler_config.h"
#include "models/unet2d.h"
#include "models/unet2d_condition.h"
#include "runtime/checkpoint/checkpoint.h"
#include "runtime/checkpoint/file_io.h"
#include "runtime/files/json_text.h"
#include "runtime/files/path.h"
#include "runtime/training/state_io.h"

namespace lockstep::diffusion {
namespace {

std::string first_there(const std::string& folder, std::initializer_list<const char*> names) {
  for (const char* name : names)
    if (std::string path = folder + "/" + name; is_there(path)) return path;
  return "";
}

}  // namespace

FolderFiles find_files(const std::string& folder) {
  return {first_there(folder, {"unet/config.json", "config.json"}),
          first_there(folder, {"scheduler/scheduler_config.json", "scheduler_config.json"}),
          first_there(folder, {"text_encoder/config.json"}), first_there(folder, {"vae/config.json"}),
          first_there(folder, {"tokenizer"})};
}

FolderFiles expect_files(const std::string& folder) {
  FolderFiles files = find_files(folder);
  const auto missing = [&](const char* what, const char* in) {
    return Error(Exit::no_input, "E_FOLDER_NONE",
                 fmt::format("neither {}/{} nor {} in this folder", in, what, what))
        .at("folder", folder)
        .hint("a run of `lockstep fit` or a diffusers folder has them");
  };
  if (files.unet_config.empty()) throw missing("config.json", "unet");
  if (files.scheduler_config.empty()) throw missing("scheduler_config.json", "scheduler");
  return files;
}

void write_configuration(const std::string& folder, const ModelSpec& model,
                         const SchedulerConfig& scheduler) {
  const auto write = [&](const std::string& part, const char* file, const nlohmann::ordered_json& json) {
    make_folders(folder + part);
    write_file_atomically(folder + part + "/" + file, json_text(json, 2) + "\n");
  };
  nlohmann::ordered_json index = {{"_class_name", "DDPMPipeline"},
                                  {"_diffusers_version", "0.42.1"},
                                  {"scheduler", {"diffusers", "DDPMScheduler"}},
                                  {"unet", {"diffusers", "UNet2DModel"}}};
  if (model.reads_text()) {
    index["_class_name"] = "StableDiffusionPipeline";
    index["unet"][1] = "UNet2DConditionModel";
    // Without a VAE the UNet draws pixels, which diffusers gives out as output_type="latent", a height and width of 8 being one.
    for (const char* none : {"vae", "safety_checker", "feature_extractor", "image_encoder"})
      index[none] = {nullptr, nullptr};
    if (const auto& vae = model.text_to_image.vae) {
      const nlohmann::ordered_json config =
          std::visit([](const auto& kind) { return to_json(kind); }, vae->kind);
      index["vae"] = {"diffusers", config["_class_name"]};
      write("/vae", "config.json", config);
    }
    index["requires_safety_checker"] = false;
    index["text_encoder"] = {"transformers", "CLIPTextModel"};
    index["tokenizer"] = {"transformers", "CLIPTokenizer"};
    write("/text_encoder", "config.json", to_json(model.text_to_image.text_encoder));
  }
  write("", "model_index.json", index);
  write("/unet", "config.json", model.reads_text() ? to_json(model.text_to_image.unet) : to_json(model.unet));
  make_folders(folder + "/scheduler");
  write_scheduler_config(folder + "/scheduler/scheduler_config.json", "ddpm", scheduler);
}

}  // namespace lockstep::diffusion
