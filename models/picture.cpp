// SPDX-License-Identifier: Apache-2.0
#include "models/picture.h"

#include "runtime/data/fit.h"

namespace lockstep {
namespace {

Image of_the_models_size(const ModelDescription& model, const std::string& name, Image image) {
  const InputShape& input = model.input;
  if (model.window.given()) image = fitted(name, std::move(image), {.resize = {}, .crop = model.window});
  if (image.height != input.height || image.width != input.width)
    throw Error(Exit::data, "E_IMAGE_SIZE",
                fmt::format("the image is {}x{}, the model was trained on {}x{}", image.height, image.width,
                            input.height, input.width))
        .at("file", name);
  return image;
}

}  // namespace

Image read_picture(const ModelDescription& model, const std::string& file) {
  return of_the_models_size(model, file, read_image(file, model.input.channels, model.fit));
}

Image decode_picture(const ModelDescription& model, const std::string& name, std::span<const uint8_t> bytes) {
  return of_the_models_size(model, name, decode_image(name, bytes, model.input.channels, model.fit));
}

}  // namespace lockstep
