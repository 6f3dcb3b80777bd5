/* The operators as an external delegate, for interpreters whose resolver cannot be reached: those of Python packages
 * and apps. A resolver gives operators that it does not know a registration with their name; the delegate puts ours in
 * their place, one node at a time, so that the tensors between them stay the interpreter's.
 * Interface: tensorflow/lite/delegates/external/external_delegate_interface.h. */
#include "operators.h"

#include <stdlib.h>
#include <string.h>

#if defined(_WIN32)
#    define EXPORT __declspec(dllexport)
#else
#    define EXPORT
#endif

/* A node of the operator that the only replaced node names. */
static void *init(TfLiteContext *context, const char *buffer, size_t length) {
    const TfLiteDelegateParams *params = (const TfLiteDelegateParams *)(const void *)buffer;
    TfLiteNode *replaced;
    TfLiteRegistration *registration;
    (void)length;
    if (params == NULL || params->nodes_to_replace->size != 1 ||
        context->GetNodeAndRegistration(context, params->nodes_to_replace->data[0], &replaced,
                                        &registration) != kTfLiteOk ||
        registration->custom_name == NULL) {
        return NULL;
    }
    const bt_operator *op = bt_find(registration->custom_name);
    const int size = replaced->custom_initial_data_size;
    bt_node *node = op == NULL
                        ? NULL
                        : bt_create(op, context, replaced->custom_initial_data, size > 0 ? (size_t)size : 0);
    if (node != NULL) {
        bt_bind(node, replaced);
        node->delegated = 1;
    }
    return node;
}

static void destroy(TfLiteContext *context, void *state) {
    (void)context;
    bt_destroy(state);
}

static TfLiteStatus replace(TfLiteContext *context, TfLiteDelegate *delegate, const int *nodes, int count) {
    TfLiteRegistration registration;
    memset(&registration, 0, sizeof(registration));
    registration.init = init;
    registration.free = destroy;
    registration.prepare = bt_prepare;
    registration.invoke = bt_invoke;
    registration.custom_name = "BdnetOperators";
    registration.version = 1;
    TfLiteIntArray *one = malloc(sizeof(TfLiteIntArray) + sizeof(int));
    TfLiteStatus status = one == NULL ? kTfLiteError : kTfLiteOk;
    for (int i = 0; i < count && status == kTfLiteOk; i++) {
        TfLiteNode *node;
        TfLiteRegistration *found;
        status = context->GetNodeAndRegistration(context, nodes[i], &node, &found);
        if (status == kTfLiteOk && found->custom_name != NULL && found->builtin_code == BT_CUSTOM &&
            bt_find(found->custom_name) != NULL) {
            one->size = 1;
            one->data[0] = nodes[i];
            status = context->ReplaceNodeSubsetsWithDelegateKernels(context, registration, one, delegate);
        }
    }
    free(one);
    return status;
}

static TfLiteStatus prepare_delegate(TfLiteContext *context, TfLiteDelegate *delegate) {
    TfLiteIntArray *plan;
    if (context->GetExecutionPlan(context, &plan) != kTfLiteOk) {
        return kTfLiteError;
    }
    /* The plan changes with each replacement. */
    const int count = plan->size;
    int *nodes = malloc(((size_t)count + 1) * sizeof(int));
    if (nodes == NULL) {
        return kTfLiteError;
    }
    memcpy(nodes, plan->data, (size_t)count * sizeof(int));
    const TfLiteStatus status = replace(context, delegate, nodes, count);
    free(nodes);
    return status;
}

/* There are no options. */
EXPORT TfLiteDelegate *tflite_plugin_create_delegate(const char *const *keys, const char *const *values,
                                                     size_t count, void (*report)(const char *));
EXPORT void tflite_plugin_destroy_delegate(TfLiteDelegate *delegate);

TfLiteDelegate *tflite_plugin_create_delegate(const char *const *keys, const char *const *values,
                                              size_t count, void (*report)(const char *)) {
    (void)keys;
    (void)values;
    if (count != 0) {
        if (report != NULL) {
            report("the delegate of bdnet has no options");
        }
        return NULL;
    }
    TfLiteDelegate *delegate = calloc(1, sizeof(*delegate));
    if (delegate != NULL) {
        delegate->Prepare = prepare_delegate;
        /* Without this flag the interpreter prepares all nodes first, and those that it does not know cannot be. */
        delegate->flags = kTfLiteDelegateFlagsAllowDynamicTensors;
    }
    return delegate;
}

void tflite_plugin_destroy_delegate(TfLiteDelegate *delegate) {
    free(delegate);
}
