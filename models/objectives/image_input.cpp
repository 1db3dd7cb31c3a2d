// SPDX-License-Identifier: Apache-2.0
#include "models/objectives/image_input.h"

#include "kernels/image_augment/image_augment.h"
#include "kernels/image_normalize/image_normalize.h"
#include "runtime/graph/ports.h"

namespace lockstep {

ValueId add_image_input(ModelContext& context, int64_t batch, const InputShape& input) {
  GraphBuilder& b = context.builder;
  const Extent size = context.training ? input.training_images() : Extent{input.height, input.width};
  ValueId images =
      b.input(kImages, {DType::u8, {batch, input.channels, size.height, size.width}, Layout::plain}, true);
  b.set_scope("input");
  if (context.training && input.augment.any())
    images =
        b.add1("image_augment",
               ImageAugmentParams{input.augment.flip, input.augment.crop_padding, input.height, input.width},
               {images, context.step_state});
  return b.add1("image_normalize", ImageNormalizeParams{input.mean, input.std}, {images});
}

ValueId add_label_input(ModelContext& context, int64_t batch) {
  return context.builder.input(kLabels, {DType::i32, {batch}, Layout::plain}, true);
}

}  // namespace lockstep
