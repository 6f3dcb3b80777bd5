// An application of TensorFlow Lite as it uses bdnet_tflite.h: a resolver with the signatures of
// tensorflow/lite/mutable_op_resolver.h. Prints the operators that it was given.
#include <cstdint>
#include <cstdio>
#include <vector>

extern "C" {
typedef struct TfLiteContext TfLiteContext;
typedef struct TfLiteNode TfLiteNode;
typedef enum TfLiteStatus { kTfLiteOk = 0, kTfLiteError = 1 } TfLiteStatus;
// The fields that common.h has had since TensorFlow 2.16.
typedef struct TfLiteRegistration {
    void *(*init)(TfLiteContext *context, const char *buffer, size_t length);
    void (*free)(TfLiteContext *context, void *buffer);
    TfLiteStatus (*prepare)(TfLiteContext *context, TfLiteNode *node);
    TfLiteStatus (*invoke)(TfLiteContext *context, TfLiteNode *node);
    const char *(*profiling_string)(const TfLiteContext *context, const TfLiteNode *node);
    int32_t builtin_code;
    const char *custom_name;
    int version;
    void *registration_external;
    void *(*async_kernel)(TfLiteContext *context, TfLiteNode *node);
    uint64_t inplace_operator;
} TfLiteRegistration;
}

#include "bdnet_tflite.h"

namespace tflite {
class MutableOpResolver {
  public:
    virtual ~MutableOpResolver() = default;
    void AddCustom(const char *name, const TfLiteRegistration *registration, int version = 1) {
        TfLiteRegistration copy = *registration; // as theirs does
        copy.custom_name = name;
        copy.version = version;
        found.push_back(copy);
    }
    std::vector<TfLiteRegistration> found;
};
} // namespace tflite

int main() {
    tflite::MutableOpResolver resolver;
    bdnet_tflite_add_all(&resolver);
    for (const TfLiteRegistration &r : resolver.found) {
        if (!r.init || !r.free || !r.prepare || !r.invoke || r.inplace_operator != 0 || r.async_kernel) {
            return 1;
        }
        std::printf("%s\n", r.custom_name);
    }
    return bdnet_tflite_name(-1) || bdnet_tflite_name(bdnet_tflite_count()) ||
           bdnet_tflite_registration(bdnet_tflite_count());
}
