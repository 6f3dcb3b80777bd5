/* The operators as registrations for a resolver. */
#include "bdnet_tflite.h"
#include "operators.h"

#define OPERATORS(X) X(bt_quantize) X(bt_dequantize) X(bt_bconv2d) X(bt_bmaxpool2d) X(bt_depthwise)

static void destroy(TfLiteContext *context, void *state) {
    (void)context;
    bt_destroy(state);
}

/* init knows nothing of the registration that it belongs to, so each operator has its own. */
#define DEFINE_INIT(op)                                                                                      \
    static void *init_##op(TfLiteContext *context, const char *options, size_t length) {                     \
        return bt_create(&op, context, options, length);                                                     \
    }
OPERATORS(DEFINE_INIT)

#define REGISTRATION(op) {init_##op, destroy, bt_prepare, bt_invoke, 0, 0, 0, 1, 0, 0, 0, {0, 0, 0, 0}},
static const TfLiteRegistration registrations[] = {OPERATORS(REGISTRATION)};

#define ADDRESS(op) &op,
static const bt_operator *const operators[] = {OPERATORS(ADDRESS)};

int bdnet_tflite_count(void) {
    return (int)(sizeof(operators) / sizeof(operators[0]));
}

const char *bdnet_tflite_name(int i) {
    return i >= 0 && i < bdnet_tflite_count() ? operators[i]->name : NULL;
}

const struct TfLiteRegistration *bdnet_tflite_registration(int i) {
    return i >= 0 && i < bdnet_tflite_count() ? &registrations[i] : NULL;
}

const bt_operator *bt_find(const char *name) {
    for (int i = 0; i < bdnet_tflite_count(); i++) {
        const char *a = operators[i]->name, *b = name;
        while (*a != 0 && *a == *b) {
            a++;
            b++;
        }
        if (*a == *b) {
            return operators[i];
        }
    }
    return NULL;
}
