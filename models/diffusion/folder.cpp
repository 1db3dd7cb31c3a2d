// SPDX-License-Identifier: Apache-2.0
#include "models/diffusion/folder.h"

#include <cerrno>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "models/diffusion/scheduler_config.h"
#include "models/unet2d.h"
#include "runtime/checkpoint/checkpoint.h"
#include "runtime/checkpoint/file_io.h"
#include "runtime/training/state_io.h"

namespace lockstep::diffusion {

void write_folder(const std::string& folder, const UNet2DConfig& unet, const SchedulerConfig& scheduler,
                  const ModelState& weights) {
  for (const char* part : {"/unet", "/scheduler"}) {
    std::error_code error;
    std::filesystem::create_directories(folder + part, error);
    if (error) throw_io(IoStage::creating, "cannot create the folder", folder + part, error.value());
  }
  // The weights last: where they are, the rest is.
  const nlohmann::ordered_json index = {{"_class_name", "DDPMPipeline"},
                                        {"_diffusers_version", "0.42.1"},
                                        {"scheduler", {"diffusers", "DDPMScheduler"}},
                                        {"unet", {"diffusers", "UNet2DModel"}}};
  write_file_atomically(folder + "/model_index.json", index.dump(2) + "\n");
  write_scheduler_config(folder + "/scheduler/scheduler_config.json", "ddpm", scheduler);
  write_file_atomically(folder + "/unet/config.json", to_json(unet).dump(2) + "\n");
  export_model(folder + "/unet/diffusion_pytorch_model.safetensors", averaged_tensors(weights));
}

}  // namespace lockstep::diffusion
