/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* An intrusive, circular, doubly linked list. A head and a node are the same struct. */
#ifndef ASH_UTIL_LIST_H
#define ASH_UTIL_LIST_H

#include <stdbool.h>
#include "util/compiler.h"

struct ash_list {
    struct ash_list *next;
    struct ash_list *prev;
};

#define ASH_LIST_INIT(head) {&(head), &(head)}

static inline void ash_list_init(struct ash_list *head)
{
    head->next = head;
    head->prev = head;
}

static inline bool ash_list_empty(const struct ash_list *head)
{
    return head->next == head;
}

static inline void ash_list_insert_after(struct ash_list *at, struct ash_list *node)
{
    node->prev = at;
    node->next = at->next;
    at->next->prev = node;
    at->next = node;
}

static inline void ash_list_push_back(struct ash_list *head, struct ash_list *node)
{
    ash_list_insert_after(head->prev, node);
}

static inline void ash_list_push_front(struct ash_list *head, struct ash_list *node)
{
    ash_list_insert_after(head, node);
}

/* Takes the node out and leaves it empty, so that removing it again is harmless. */
static inline void ash_list_remove(struct ash_list *node)
{
    node->prev->next = node->next;
    node->next->prev = node->prev;
    ash_list_init(node);
}

#define ash_list_entry(pointer, type, field) ash_container_of(pointer, type, field)
#define ash_list_first(head, type, field) ash_list_entry((head)->next, type, field)
#define ash_list_last(head, type, field) ash_list_entry((head)->prev, type, field)

#define ash_list_for_each(item, head, type, field)                                                 \
    for (type *item = ash_list_entry((head)->next, type, field); &item->field != (head);           \
         item = ash_list_entry(item->field.next, type, field))

/* The current item may be removed and freed in the body. */
#define ash_list_for_each_safe(item, head, type, field)                                            \
    for (type *item = ash_list_entry((head)->next, type, field),                                   \
              *item##_next = ash_list_entry(item->field.next, type, field);                        \
         &item->field != (head);                                                                   \
         item = item##_next, item##_next = ash_list_entry(item->field.next, type, field))

#endif
