/* Handwritten digits on a microcontroller: checks itself, then classifies the test images that are linked in.
 *
 * model.h is written by `bdnet-deploy export --target c`; images.h by the build (firmware_examples/digits/README.md). */
#include "images.h"
#include "model.h"
#include "port.h"

static uint8_t arena[BD_MODEL_ARENA_BYTES] __attribute__((aligned(16)));

static void print_number(int32_t value) {
    char text[12];
    char *at = text + sizeof text - 1;
    uint32_t rest = value < 0 ? 0u - (uint32_t)value : (uint32_t)value;
    *at = 0;
    do {
        *--at = (char)('0' + rest % 10u);
        rest /= 10u;
    } while (rest != 0);
    if (value < 0) {
        *--at = '-';
    }
    port_print(at);
}

static int32_t largest(const BD_MODEL_OUTPUT_TYPE *logits) {
    int32_t best = 0;
    for (int32_t i = 1; i < BD_MODEL_OUTPUT_CHANNELS; i++) {
        if (logits[i] > logits[best]) {
            best = i;
        }
    }
    return best;
}

int main(void) {
    static BD_MODEL_INPUT_TYPE input[BD_MODEL_INPUT_ELEMENTS] __attribute__((aligned(16)));
    static BD_MODEL_OUTPUT_TYPE output[BD_MODEL_OUTPUT_ELEMENTS] __attribute__((aligned(16)));
    bd_context *context = NULL;
    int passed = 0;

    port_print("bdnet digits\n");
    const bd_status loaded =
        bd_load(arena, sizeof arena, BD_MODEL_DATA, BD_MODEL_BYTES, &BD_MODEL_KERNELS, &context);
    if (loaded != BD_OK || bd_self_test(context, input, output, &passed) != BD_OK || !passed) {
        port_print("self-test FAIL: ");
        port_print(bd_status_name(loaded));
        port_print("\n");
        return 1;
    }
    port_print("self-test PASS\n");

    int32_t correct = 0;
    for (int32_t i = 0; i < BD_IMAGES; i++) {
        for (int32_t j = 0; j < BD_MODEL_INPUT_ELEMENTS; j++) { /* the runtime wants its input aligned */
            input[j] = bd_images[i][j];
        }
        const void *const inputs[] = {input};
        void *const outputs[] = {output};
        const bd_status status = bd_run(context, inputs, 1, outputs, 1);
        if (status != BD_OK) {
            port_print("FAIL: ");
            port_print(bd_status_name(status));
            port_print("\n");
            return 1;
        }
        const int32_t digit = largest(output);
        correct += digit == bd_image_labels[i];
        port_print("image ");
        print_number(i);
        port_print(": predicted ");
        print_number(digit);
        port_print(", is ");
        print_number(bd_image_labels[i]);
        port_print("\n");
    }
    print_number(correct);
    port_print(" of ");
    print_number(BD_IMAGES);
    port_print(" correct\n");
    return 0;
}
